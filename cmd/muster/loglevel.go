package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-registry/muster"
)

func newLogLevel(g *global) *cobra.Command {
	var on, reason string
	var hold time.Duration
	cmd := &cobra.Command{
		Use:   "log-level [debug|info|warn|error|reset]",
		Short: "Show or set how much a node logs, without a restart",
		Long: `Show or set how much a node logs. The level is the node's own: --node names one, by
name or id, or "all"; without it the node that --addr names is meant. A named node is
spoken to at the address of its API in "muster members". Of "all", those that do not
answer are named at the end, with exit code 1.

A level that was set goes back to the one the node was started with after --for, so
that "debug" is not left on; "reset" goes back at once.`,
		Example: `  muster log-level
  muster log-level debug --for 5m --node n2
  muster log-level warn --for 0 --node all
  muster log-level reset --node all`,
		Args: cobra.MaximumNArgs(1),

		ValidArgsFunction: complete(g, words(append(slices.Clone(muster.LogLevels), "reset")...)),
		RunE: func(cmd *cobra.Command, args []string) error {
			method, body := http.MethodGet, any(nil)
			switch {
			case len(args) == 0:
			case args[0] == "reset":
				method = http.MethodDelete
			case slices.Contains(muster.LogLevels, strings.ToLower(args[0])):
				set := map[string]any{"level": strings.ToLower(args[0])}
				if hold != 0 {
					set["for"] = hold.String()
				}
				method, body = http.MethodPut, set
			default:
				return usageError("%q is none of %s, reset", args[0], strings.Join(muster.LogLevels, ", "))
			}
			a, err := newAPI(g)
			if err != nil {
				return err
			}
			nodes, err := a.nodes(cmd.Context(), on)
			if err != nil {
				return err
			}
			params := query("reason", reason)
			if method == http.MethodGet {
				params = nil
			}
			var levels []muster.LogLevel
			var failed []error
			for _, n := range nodes {
				now, err := n.logLevel(cmd.Context(), method, params, body)
				switch {
				case err == nil:
					levels = append(levels, now)
				case len(nodes) == 1:
					return err
				default: // the others are asked all the same
					failed = append(failed, fmt.Errorf("%s: %s", n.name, brief(err)))
				}
			}
			if len(levels) > 0 {
				failed = append(failed, printLogLevels(cmd, g, levels))
			}
			return errors.Join(failed...)
		},
	}
	cmd.Flags().StringVar(&on, "node", "", `name or id of a node, or "all" (default: the one that --addr names)`)
	cmd.Flags().DurationVar(&hold, "for", 15*time.Minute, "how long a level holds, 1s to 24h; 0: until it is set again")
	cmd.Flags().StringVar(&reason, "reason", "", "why, kept in the node's log beside who and when")
	return cmd
}

// member is a node that a verb is about. Without a known address of its API, api is nil.
type member struct {
	name string
	api  *api
}

func (m member) logLevel(ctx context.Context, method string, params url.Values, body any) (now muster.LogLevel, err error) {
	if m.api == nil {
		return now, fmt.Errorf("the address of the API of %s is not known to the node that answered", m.name)
	}
	_, err = m.api.call(ctx, method, "/v1/node/log-level", params, body, &now)
	return now, err
}

// nodes are the nodes that a verb is about: of the cluster the one of that name or id,
// or all of them; with no name whichever answers first.
func (a *api) nodes(ctx context.Context, name string) ([]member, error) {
	if name == "" {
		return []member{{api: a}}, nil
	}
	var c muster.Cluster
	if _, err := a.call(ctx, http.MethodGet, "/v1/cluster", nil, nil, &c); err != nil {
		return nil, err
	}
	scheme, _, _ := strings.Cut(a.addrs[0], "://")
	var found []member
	var known []string
	for _, m := range c.Members {
		known = append(known, m.Name)
		if name != "all" && m.Name != name && m.ID != name {
			continue
		}
		one := member{name: m.Name}
		if m.APIAddr != "" {
			one.api = &api{addrs: []string{scheme + "://" + m.APIAddr}, http: a.http}
		}
		found = append(found, one)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no member has the name or id %q; there are %s", name, strings.Join(known, ", "))
	}
	return found, nil
}

func printLogLevels(cmd *cobra.Command, g *global, levels []muster.LogLevel) error {
	if g.output == "json" {
		return printJSON(cmd, levels)
	}
	rows := make([][]string, len(levels))
	for n, l := range levels {
		until := "-"
		if !l.Until.IsZero() {
			until = l.Until.Local().Format("15:04:05")
		}
		rows[n] = []string{l.Node, l.Level, l.Configured, until}
	}
	return table(cmd.OutOrStdout(), "NODE LEVEL CONFIGURED UNTIL", rows)
}
