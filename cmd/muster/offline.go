package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-registry/muster/node"
)

func newRepair(g *global) *cobra.Command {
	var dataDir string
	var yes bool
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Offline: set a node's damaged data aside, so that it joins anew",
		Long: `Set the content of a data directory aside (into a folder within it), so that the
node that is started on it next is a new member: it joins, gets all data from the
others, and takes the place of its old self. For a node that ended with exit code 65,
or that was left behind when its cluster was recovered. The node must not run, and
the others need their quorum.`,
		Example: `  muster repair --data-dir /var/lib/muster`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dataDir == "" {
				return configError("--data-dir is needed: the data directory of the node")
			}
			if err := confirm(cmd, yes, "This makes the node forget all it holds. Do it only while the rest of the cluster has its quorum."); err != nil {
				return err
			}
			aside, err := node.Repair(dataDir)
			if err != nil {
				return err
			}
			if g.output == "json" {
				return printJSON(cmd, map[string]string{"aside": aside})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "the old content is in %s; start the node as before, and it joins as a new member\n", aside)
			return err
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "the data directory of a node that does not run")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask on a terminal")
	return cmd
}

func newRecover(g *global) *cobra.Command {
	var dataDir, peerAddr string
	var yes bool
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Offline: rebuild a cluster of one node after its quorum is lost for good",
		Long: `Make one node the only member of a new cluster, with all the content it holds, when
so many of the others are lost for good that no leader can be elected any more. Choose
the survivor whose "muster members" last showed the highest applied index. What only
the lost nodes had is gone.

The cluster gets a new id, so that a lost node that comes back after all stays out;
clients that carry an index begin anew. Then start the node as before, and after
"muster repair" on their data directories the other nodes too: they join it.

If the others may come back, wait for them instead.`,
		Example: `  muster recover --data-dir /var/lib/muster
  muster recover --data-dir /var/lib/muster --peer-addr 10.0.1.9:7401`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dataDir == "" {
				return configError("--data-dir is needed: the data directory of the node that is to go on")
			}
			if err := confirm(cmd, yes, "This gives up what only the other nodes hold, and they may not come back as they are."); err != nil {
				return err
			}
			logger, _, err := (&logFlags{format: "text", level: "info"}).logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			done, err := node.Recover(cmd.Context(), dataDir, peerAddr, logger)
			if err != nil {
				return err
			}
			if g.output == "json" {
				return printJSON(cmd, map[string]any{"id": done.ID, "peer_addr": done.PeerAddr, "index": done.Index, "lost": done.Lost})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), `node %s at %s is a cluster of its own, with all up to log index %d
no members any more: %s
start it as before; "muster repair" the others before they join it
`, done.ID, done.PeerAddr, done.Index, strings.Join(done.Lost, ", "))
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&dataDir, "data-dir", "", "the data directory of a node that does not run")
	f.StringVar(&peerAddr, "peer-addr", "", "the node's peer address, if it is another than before")
	f.BoolVar(&yes, "yes", false, "do not ask on a terminal")
	return cmd
}
