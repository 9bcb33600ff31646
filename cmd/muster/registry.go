package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-registry/muster"
)

func newServices(g *global) *cobra.Command {
	var namespace, prefix string
	cmd := &cobra.Command{
		Use:   "services",
		Short: "List the services",
		Example: `  muster services
  muster services --prefix pay-`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := newAPI(g)
			if err != nil {
				return err
			}
			var list muster.Services
			if _, err := a.call(cmd.Context(), "GET", "/v1/services", query("namespace", namespace, "prefix", prefix), nil, &list); err != nil {
				return err
			}
			if g.output == "json" {
				return printJSON(cmd, list)
			}
			rows := make([][]string, len(list.Services))
			for n, s := range list.Services {
				rows[n] = []string{s.Namespace, s.Service, strconv.Itoa(s.Instances), strconv.Itoa(s.Routable), strconv.FormatUint(s.Index, 10)}
			}
			return table(cmd.OutOrStdout(), "NAMESPACE SERVICE INSTANCES ROUTABLE INDEX", rows)
		},
	}
	namespaceFlag(cmd, &namespace)
	cmd.Flags().StringVar(&prefix, "prefix", "", "only services whose name starts so")
	return cmd
}

func newInstances(g *global) *cobra.Command {
	var namespace string
	var only filters
	var linearizable bool
	cmd := &cobra.Command{
		Use:   "instances SERVICE",
		Short: "List the instances of a service",
		Example: `  muster instances web
  muster instances web --routable --zone eu-1a
  muster instances web --filter '"canary" in tags' -o json`,
		Args: cobra.ExactArgs(1),

		ValidArgsFunction: complete(g, serviceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := newAPI(g)
			if err != nil {
				return err
			}
			q := query("namespace", namespace)
			only.into(q)
			if linearizable {
				q.Set("consistency", "linearizable")
			}
			var view muster.View
			if _, err := a.call(cmd.Context(), "GET", servicePath(args[0]), q, nil, &view); err != nil {
				return err
			}
			if g.output == "json" {
				return printJSON(cmd, &view)
			}
			return printInstances(cmd, &view)
		},
	}
	namespaceFlag(cmd, &namespace)
	only.flags(cmd, "only instances of this zone")
	cmd.Flags().BoolVar(&linearizable, "linearizable", false, "read every write acknowledged before")
	return cmd
}

func printInstances(cmd *cobra.Command, view *muster.View) error {
	if len(view.Instances) == 0 {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "no instances (%s)\n", view.EmptyReason)
		return err
	}
	rows := make([][]string, len(view.Instances))
	for n, i := range view.Instances {
		status := string(i.Status)
		if i.Suspect {
			status += " (suspect)"
		}
		ttl := i.TTL.String()
		if i.TTL.IsZero() {
			ttl = i.LeaseID.String()
		}
		rows[n] = []string{i.ID, fmt.Sprintf("%s:%d", i.Address, i.Port), status, string(i.StatusCause), ago(i.StatusSince), i.Zone, i.Version, strconv.Itoa(i.Weight), ttl, strings.Join(i.Tags, ","), checksOf(i)}
	}
	return table(cmd.OutOrStdout(), "ID ADDRESS STATUS CAUSE SINCE ZONE VERSION WEIGHT TTL TAGS CHECKS", rows)
}

// checksOf says how many checks pass, what is wrong with the others, and until
// when an instance is held out.
func checksOf(i *muster.Instance) string {
	if len(i.Checks) == 0 {
		return ""
	}
	var up int
	var others []string
	for _, c := range i.Checks {
		switch {
		case c.Status == muster.StatusDown:
			others = append(others, fmt.Sprintf("%s down (%s)", c.Name, c.Cause))
		case c.Status != muster.StatusUp:
			others = append(others, c.Name+" unknown")
		default:
			up++
		}
		if c.Contested {
			others = append(others, c.Name+" contested")
		}
	}
	if !i.HeldUntil.IsZero() {
		others = append(others, "held until "+i.HeldUntil.Format(time.TimeOnly))
	}
	return strings.Join(append([]string{fmt.Sprintf("%d/%d", up, len(i.Checks))}, others...), ", ")
}

func newDeregister(g *global) *cobra.Command {
	var namespace, reason string
	cmd := &cobra.Command{
		Use:     "deregister SERVICE ID",
		Short:   "Take an instance away",
		Example: `  muster deregister web web-1 --reason "host retired"`,
		Args:    cobra.ExactArgs(2),

		ValidArgsFunction: complete(g, serviceNames, instanceIDs),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := newAPI(g)
			if err != nil {
				return err
			}
			h, err := a.call(cmd.Context(), "DELETE", instancePath(args[0], args[1]), query("namespace", namespace, "reason", reason), nil, nil)
			if err != nil {
				return err
			}
			return said(cmd, g, h.Get("Muster-Index"), "deregistered %s %s", args[0], args[1])
		},
	}
	namespaceFlag(cmd, &namespace)
	reasonFlag(cmd, &reason)
	return cmd
}

func newOverride(g *global) *cobra.Command {
	var namespace, reason string
	var lasts time.Duration
	cmd := &cobra.Command{
		Use:   "override SERVICE ID maintenance|draining|none",
		Short: "Take an instance out of traffic, or give it back",
		Long: `Lay the operator's word over what the owner registered. It stays when the
owner registers again, until it is taken off with "none" or --for has passed.`,
		Example: `  muster override web web-1 maintenance --reason "disk swap" --for 2h
  muster override web web-1 none`,
		Args: cobra.ExactArgs(3),

		ValidArgsFunction: complete(g, serviceNames, instanceIDs, words("maintenance", "draining", "none")),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains([]string{"maintenance", "draining", "none"}, args[2]) {
				return usageError("%q is none of maintenance, draining, none", args[2])
			}
			a, err := newAPI(g)
			if err != nil {
				return err
			}
			path, q := instancePath(args[0], args[1], "override"), query("namespace", namespace, "reason", reason)
			if args[2] == "none" {
				h, err := a.call(cmd.Context(), "DELETE", path, q, nil, nil)
				if err != nil {
					return err
				}
				return said(cmd, g, h.Get("Muster-Index"), "override of %s %s removed", args[0], args[1])
			}
			o := muster.Override{Status: muster.Status(args[2]), Reason: reason}
			if lasts > 0 {
				o.Until = time.Now().Add(lasts).UTC().Truncate(time.Second)
			}
			h, err := a.call(cmd.Context(), "PUT", path, q, o, nil)
			if err != nil {
				return err
			}
			return said(cmd, g, h.Get("Muster-Index"), "%s %s is in %s", args[0], args[1], args[2])
		},
	}
	namespaceFlag(cmd, &namespace)
	reasonFlag(cmd, &reason)
	cmd.Flags().DurationVar(&lasts, "for", 0, "how long it lasts (default: until it is removed)")
	return cmd
}

func newEvents(g *global) *cobra.Command {
	var namespace string
	var limit int
	var since uint64
	cmd := &cobra.Command{
		Use:   "events [SERVICE [ID]]",
		Short: "Show why, when and by whom instances came, changed and went",
		Example: `  muster events
  muster events web web-1 --limit 20`,
		Args: cobra.MaximumNArgs(2),

		ValidArgsFunction: complete(g, serviceNames, instanceIDs),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := newAPI(g)
			if err != nil {
				return err
			}
			q := query("namespace", namespace, "limit", strconv.Itoa(limit))
			for n, name := range []string{"service", "instance"} {
				if n < len(args) {
					q.Set(name, args[n])
				}
			}
			if since > 0 {
				q.Set("since", strconv.FormatUint(since, 10))
			}
			var events muster.Events
			if _, err := a.call(cmd.Context(), "GET", "/v1/events", q, nil, &events); err != nil {
				return err
			}
			if g.output == "json" {
				return printJSON(cmd, events)
			}
			rows := make([][]string, len(events.Events))
			for n, e := range events.Events {
				rows[n] = []string{strconv.FormatUint(e.Index, 10), e.Time.Local().Format("2006-01-02 15:04:05"), string(e.Type), eventSubject(e), string(e.Cause), string(e.Status), e.Actor, e.Reason}
			}
			return table(cmd.OutOrStdout(), "INDEX TIME TYPE INSTANCE CAUSE STATUS ACTOR REASON", rows)
		},
	}
	namespaceFlag(cmd, &namespace)
	cmd.Flags().IntVar(&limit, "limit", muster.DefaultEventsLimit, "how many of the latest events, at most 1000")
	cmd.Flags().Uint64Var(&since, "since", 0, "only events after this index")
	return cmd
}

// eventSubject names what an event is about; "" is the whole registry.
func eventSubject(e *muster.Event) string {
	if e.ID == "" {
		return e.Service
	}
	return e.Service + "/" + e.ID
}

func namespaceFlag(cmd *cobra.Command, p *string) {
	cmd.Flags().StringVar(p, "namespace", "", `namespace (default "default")`)
}

func reasonFlag(cmd *cobra.Command, p *string) {
	cmd.Flags().StringVar(p, "reason", "", "why, kept in the journal beside who and when")
}

// said confirms a write.
func said(cmd *cobra.Command, g *global, index, format string, args ...any) error {
	if g.output == "json" {
		n, err := strconv.ParseUint(index, 10, 64)
		if err != nil {
			return fmt.Errorf("reading the index of the answer: %w", err)
		}
		return printJSON(cmd, map[string]uint64{"index": n})
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), format+" (index %s)\n", append(args, index)...)
	return err
}
