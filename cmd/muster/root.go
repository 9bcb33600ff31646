package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// global are the flags every verb has.
type global struct {
	addrs  []string
	output string
	config string
	caFile string
	// addrGiven: --addr is on the command line, and not merely in the environment or the
	// configuration file.
	addrGiven bool
}

func newRoot() *cobra.Command {
	g := &global{}
	root := &cobra.Command{
		Use:   "muster",
		Short: "A service registry: register, discover and watch what is alive",
		Long: `Muster keeps the list of services and of their live instances.

Start a node with "muster server", or a throw-away cluster with "muster dev";
the other verbs talk to a running cluster. Every flag is also a variable
MUSTER_<FLAG> in the environment (MUSTER_API_ADDR for --api-addr) and a key of
the file named by --config; a flag wins over the environment, the environment
over the file, the file over the default.

What it prints is for people, and with -o json for programs; errors go to stderr.
Tables are cut to a terminal's width and coloured there (unless NO_COLOR is set), and
neither elsewhere. "muster completion --help" sets up completion of verbs, flags and
of the names of services and instances.

Exit codes: 0; 1 error, or what was waited for did not come; 2 usage; 65 corrupt data;
74 disk error; 78 configuration, or a data directory in use. "muster run" and "muster
pick --exec" end with the code of the command they run, 126 where it cannot be run,
127 where it is not found, 128 plus the signal that ended it.`,
		Example: `  muster dev
  muster register web --address 10.0.0.5 --port 8080 --ttl none
  muster instances web
  muster members`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			hint := fmt.Sprintf("see %q", "muster --help")
			if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
				hint = fmt.Sprintf("did you mean %q?", like[0])
			}
			return usageError("unknown command %q; %s", args[0], hint)
		},
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			g.addrGiven = cmd.Flags().Changed("addr")
			if err := applySources(cmd, g.config); err != nil {
				return err
			}
			if err := cmd.ValidateRequiredFlags(); err != nil {
				return usageError("%w (see %q)", err, cmd.CommandPath()+" --help")
			}
			if g.output != "text" && g.output != "json" {
				return usageError("--output is %q, not text or json", g.output)
			}
			return nil
		},
	}
	f := root.PersistentFlags()
	f.StringSliceVar(&g.addrs, "addr", []string{"http://127.0.0.1:7400"}, "API address of a node; repeat or separate by commas: the next is tried when one does not answer")
	f.StringVarP(&g.output, "output", "o", "text", "what to print: text for people, json for programs")
	f.StringVar(&g.caFile, "ca-file", "", "certificates, in PEM, to trust for https:// addresses instead of the system's")
	f.StringVar(&g.config, "config", "", "a YAML file whose keys are names of flags")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError("%w (see %q)", err, cmd.CommandPath()+" --help")
	})
	root.AddCommand(
		newServer(g), newDev(g),
		newMembers(g), newLeader(g), newGovernor(g), newLogLevel(g),
		newServices(g), newInstances(g), newRegister(g), newDeregister(g), newOverride(g), newSettings(g), newEvents(g),
		newWatch(g), newPick(g), newRun(g), newWait(g),
		newKeygen(g), newSnapshot(g), newRepair(g), newRecover(g),
		newBench(g), newBenchFloor(), newVersion(g),
	)
	root.SuggestionsMinimumDistance = 2
	completeFlags(root, g)
	describeCompletion(root)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages ", fmt.Sprintf(".FlagUsagesWrapped %d ", helpWidth)))
	for _, cmd := range root.Commands() {
		wrapArgs(cmd)
		for _, sub := range cmd.Commands() {
			wrapArgs(sub)
		}
	}
	return root
}

// helpWidth is how wide the descriptions of flags are made.
const helpWidth = 100

// wrapArgs makes a wrong number of arguments a usage error.
func wrapArgs(cmd *cobra.Command) {
	check := cmd.Args
	if check == nil {
		return
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError("%w\nusage: %s", err, cmd.UseLine())
		}
		return nil
	}
}
