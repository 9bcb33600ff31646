package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/muster-registry/muster"
)

// completeTimeout is how long a shell waits for names; it gets none after that.
const completeTimeout = time.Second

// completer proposes words for one argument, given those before it.
type completer func(ctx context.Context, a *api, namespace string, args []string) ([]cobra.Completion, error)

// files leaves an argument, and all after it, to the shell. It is known by being nil.
var files completer

// complete proposes words for each argument in its place, and nothing after the
// last. The registry is asked; where it does not answer in time nothing is proposed.
func complete(g *global, places ...completer) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		place := len(args)
		if len(places) > 0 && places[len(places)-1] == nil && place >= len(places)-1 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		if place >= len(places) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return asked(propose(cmd, g, places[place], args, typed))
	}
}

func propose(cmd *cobra.Command, g *global, c completer, args []string, typed string) []cobra.Completion {
	// The shell asks before a verb's flags were read from their other sources.
	if err := applySources(cmd, g.config); err != nil {
		return nil
	}
	a, err := newAPI(g)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	namespace := ""
	if f := cmd.Flags().Lookup("namespace"); f != nil {
		namespace = f.Value.String()
	}
	all, err := c(ctx, a, namespace, args)
	if err != nil {
		return nil // a shell has no place for errors
	}
	return slices.DeleteFunc(all, func(s cobra.Completion) bool { return !strings.HasPrefix(s, typed) })
}

// asked is the answer to a shell: no files, and no space after what wants more.
func asked(all []cobra.Completion) ([]cobra.Completion, cobra.ShellCompDirective) {
	directive := cobra.ShellCompDirectiveNoFileComp
	if len(all) > 0 && !slices.ContainsFunc(all, func(s cobra.Completion) bool { return !strings.ContainsAny(s[len(s)-1:], "=:/") }) {
		directive |= cobra.ShellCompDirectiveNoSpace
	}
	return all, directive
}

// words proposes the same words always.
func words(all ...string) completer {
	return func(context.Context, *api, string, []string) ([]cobra.Completion, error) {
		return slices.Clone(all), nil
	}
}

func serviceNames(ctx context.Context, a *api, namespace string, _ []string) ([]cobra.Completion, error) {
	var list muster.Services
	if _, err := a.call(ctx, http.MethodGet, "/v1/services", query("namespace", namespace), nil, &list); err != nil {
		return nil, err
	}
	names := make([]cobra.Completion, len(list.Services))
	for n, s := range list.Services {
		names[n] = cobra.CompletionWithDesc(s.Service, fmt.Sprintf("%d of %s routable", s.Routable, plural(s.Instances, "instance")))
	}
	return names, nil
}

// instanceIDs proposes the instances of the service that was named before.
func instanceIDs(ctx context.Context, a *api, namespace string, args []string) ([]cobra.Completion, error) {
	view, err := instancesOf(ctx, a, namespace, args)
	if err != nil {
		return nil, err
	}
	ids := make([]cobra.Completion, len(view.Instances))
	for n, i := range view.Instances {
		ids[n] = cobra.CompletionWithDesc(i.ID, place(i)+" "+state(i))
	}
	return ids, nil
}

func instancesOf(ctx context.Context, a *api, namespace string, args []string) (*muster.View, error) {
	view := &muster.View{}
	if len(args) == 0 {
		return view, nil
	}
	_, err := a.call(ctx, http.MethodGet, servicePath(args[0]), query("namespace", namespace), nil, view)
	return view, err
}

// seenIn proposes what the instances of the service that was named before have.
func seenIn(field func(*muster.Instance) []string) completer {
	return func(ctx context.Context, a *api, namespace string, args []string) ([]cobra.Completion, error) {
		view, err := instancesOf(ctx, a, namespace, args)
		if err != nil {
			return nil, err
		}
		var all []cobra.Completion
		for _, i := range view.Instances {
			all = append(all, field(i)...)
		}
		slices.Sort(all)
		return slices.DeleteFunc(slices.Compact(all), func(s string) bool { return s == "" }), nil
	}
}

func memberIDs(ctx context.Context, a *api, _ string, _ []string) ([]cobra.Completion, error) {
	var c muster.Cluster
	if _, err := a.call(ctx, http.MethodGet, "/v1/cluster", nil, nil, &c); err != nil {
		return nil, err
	}
	ids := make([]cobra.Completion, len(c.Members))
	for n, m := range c.Members {
		ids[n] = cobra.CompletionWithDesc(m.ID, m.Name+" "+string(m.State))
	}
	return ids, nil
}

func settingKeys(context.Context, *api, string, []string) ([]cobra.Completion, error) {
	keys := make([]cobra.Completion, len(settingNames))
	for n, name := range settingNames {
		keys[n] = name + "="
	}
	return keys, nil
}

// flagValues are the flags of which the values are known, or can be asked for; with a
// verb before it, where it is otherwise for that verb.
var flagValues = map[string]completer{
	"output":       words("text", "json"),
	"bench output": words("text", "json", "markdown"),
	"bench run":    scenarioNames,
	"strategy":     words(muster.StrategyNames()...),
	"status":       words("unknown", "up", "down", "draining", "maintenance"),
	"on-expiry":    words("remove", "down"),
	"log-format":   words("text", "json"),
	"log-level":    words("debug", "info", "warn", "error"),
	"raft-profile": words("fast", "default", "slow"),
	"check":        words("http:/", "tcp", "tcp:", "grpc", "grpc:", "service:"),
	"zone":         seenIn(func(i *muster.Instance) []string { return []string{i.Zone} }),
	"version":      seenIn(func(i *muster.Instance) []string { return []string{i.Version} }),
	"tag":          seenIn(func(i *muster.Instance) []string { return i.Tags }),
}

// completeFlags gives every flag of every verb its completion: known values, files
// where it names one, and nothing otherwise.
func completeFlags(cmd *cobra.Command, g *global) {
	give := func(f *pflag.Flag) {
		values, known := flagValues[cmd.Name()+" "+f.Name]
		if !known {
			values, known = flagValues[f.Name]
		}
		if !known && (f.Name == "config" || f.Name == "json" || strings.HasSuffix(f.Name, "-file") || strings.HasSuffix(f.Name, "-dir")) {
			return // the shell's own, which is files
		}
		err := cmd.RegisterFlagCompletionFunc(f.Name, func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if !known {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return asked(propose(cmd, g, values, args, typed))
		})
		if err != nil {
			panic(err) // a flag of its own that it does not have
		}
	}
	cmd.LocalNonPersistentFlags().VisitAll(give)
	cmd.PersistentFlags().VisitAll(give)
	for _, sub := range cmd.Commands() {
		completeFlags(sub, g)
	}
}

// setUp is how each shell is given its completion, for good; the command for one
// session is in the help of cobra's own.
var setUp = map[string]string{
	"bash":       "  muster completion bash | sudo tee /etc/bash_completion.d/muster >/dev/null\n  source <(muster completion bash)",
	"zsh":        "  muster completion zsh > \"${fpath[1]}/_muster\"\n  source <(muster completion zsh)",
	"fish":       "  muster completion fish > ~/.config/fish/completions/muster.fish\n  muster completion fish | source",
	"powershell": "  muster completion powershell | Out-String | Invoke-Expression",
}

// describeCompletion adds the verb completion, with examples like all others.
func describeCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() != "completion" {
			continue
		}
		cmd.Short = "Make a shell complete verbs, flags, and names of services and instances"
		cmd.Long = `Print a script that makes a shell complete verbs, flags and their values, and the names
of services, instances and members, which it asks the registry of --addr or MUSTER_ADDR for.`
		cmd.Example = setUp["bash"] + "\n" + setUp["zsh"] + "\n" + setUp["fish"]
		for _, shell := range cmd.Commands() {
			shell.Example = setUp[shell.Name()]
		}
	}
}
