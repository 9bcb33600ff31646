package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-registry/muster"
)

func newMembers(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "members",
		Short: "Show the nodes of the cluster",
		Example: `  muster members
  muster members -o json | jq -r '.members[] | select(.state=="leader") | .name'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := newAPI(g)
			if err != nil {
				return err
			}
			var c muster.Cluster
			if _, err := a.call(cmd.Context(), "GET", "/v1/cluster", nil, nil, &c); err != nil {
				return err
			}
			if g.output == "json" {
				return printJSON(cmd, c)
			}
			rows := make([][]string, len(c.Members))
			for n, m := range c.Members {
				lag := "-"
				if m.LagMS >= 0 {
					lag = strconv.FormatInt(m.LagMS, 10) + "ms"
				}
				alive := "yes"
				if !m.Alive {
					alive = "NO"
				}
				rows[n] = []string{m.Name, m.ID, string(m.State), alive, m.APIAddr, m.PeerAddr, m.Zone, m.Version, strconv.FormatUint(m.AppliedIndex, 10), lag}
			}
			if err := table(cmd.OutOrStdout(), "NAME ID STATE ALIVE API PEER ZONE VERSION APPLIED LAG", rows); err != nil {
				return err
			}
			if older := olderMembers(c); older != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "feature level %d until %s is upgraded\n", c.FeatureLevel, older)
			}
			if c.Leader == "" {
				fmt.Fprintln(cmd.OutOrStdout(), "no leader is known to this node")
			}
			return nil
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use:     "remove ID",
		Short:   "Remove a member that will not come back",
		Example: `  muster members remove 5f2c81d09a4be763`,
		Args:    cobra.ExactArgs(1),

		ValidArgsFunction: complete(g, memberIDs),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := newAPI(g)
			if err != nil {
				return err
			}
			if _, err := a.call(cmd.Context(), "DELETE", "/v1/cluster/members/"+url.PathEscape(args[0]), nil, nil, nil); err != nil {
				return err
			}
			if g.output == "json" {
				return printJSON(cmd, map[string]string{"removed": args[0]})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "removed %s; its data directory must be wiped before it may join anew\n", args[0])
			return nil
		},
	})
	return cmd
}

// olderMembers are those that hold the cluster's feature level below what others know.
func olderMembers(c muster.Cluster) string {
	newest := uint64(0)
	for _, m := range c.Members {
		newest = max(newest, m.FeatureLevel)
	}
	var names []string
	for _, m := range c.Members {
		if m.FeatureLevel < newest && c.FeatureLevel < newest {
			names = append(names, m.Name)
		}
	}
	return strings.Join(names, " and ")
}

func newLeader(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "leader",
		Short: "Show the leader, or hand leadership over",
		Example: `  muster leader
  muster leader transfer`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := newAPI(g)
			if err != nil {
				return err
			}
			var c muster.Cluster
			if _, err := a.call(cmd.Context(), "GET", "/v1/cluster", nil, nil, &c); err != nil {
				return err
			}
			for _, m := range c.Members {
				if m.ID != c.Leader {
					continue
				}
				if g.output == "json" {
					return printJSON(cmd, m)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s %s %s (term %d)\n", m.Name, m.ID, m.APIAddr, c.Term)
				return nil
			}
			return muster.Errorf(muster.CodeNoLeader, "the node that answered knows no leader").
				WithHint("a majority of the members must be alive and see each other: muster members")
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "transfer [ID]",
		Short: "Hand leadership to another member, the best one if none is named",
		Example: `  muster leader transfer
  muster leader transfer 5f2c81d09a4be763`,
		Args: cobra.MaximumNArgs(1),

		ValidArgsFunction: complete(g, memberIDs),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := newAPI(g)
			if err != nil {
				return err
			}
			body := struct {
				To string `json:"to,omitempty"`
			}{}
			if len(args) == 1 {
				body.To = args[0]
			}
			var out json.RawMessage
			if _, err := a.call(cmd.Context(), "POST", "/v1/cluster/leader", nil, body, &out); err != nil {
				return err
			}
			if g.output == "json" {
				return printJSON(cmd, out)
			}
			var answer struct {
				Leader string `json:"leader"`
			}
			if err := json.Unmarshal(out, &answer); err != nil {
				return fmt.Errorf("reading the answer: %w", err)
			}
			if answer.Leader == "" {
				fmt.Fprintln(cmd.OutOrStdout(), `leadership is handed over; "muster leader" shows to whom, in a moment`)
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "leadership handed over to %s\n", answer.Leader)
			return nil
		},
	})
	return cmd
}

func newVersion(g *global) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this binary",
		Example: `  muster version -o json`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if g.output == "json" {
				return printJSON(cmd, buildInfo())
			}
			b := buildInfo()
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "muster %s (%s %s/%s)\n", b.Version, b.Go, b.OS, b.Arch)
			return err
		},
	}
}
