package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-registry/muster"
)

func newSettings(g *global) *cobra.Command {
	var namespace, reason string
	var reset bool
	cmd := &cobra.Command{
		Use:   "settings SERVICE [KEY=VALUE…]",
		Short: "Show or change how a service's instances are chosen and protected",
		Long: `Show the settings that hold for a service, or change some of them. They are the
same on all nodes and for all clients, may be set before the first instance is
registered, and stay when the last one goes.

  strategy              used where a pick names none
  panic_threshold       percent; below it, health is not believed
  zone_threshold        percent; below it, a preferred zone spills over
  max_ejected           percent that may be ejected at once for failing
  consecutive_failures  eject after that many in a row; 0 is off
  failure_rate          percent; eject at that share of failures; 0 is off
  ejection_time         length of the first ejection
  slow_start            time from an instance's start to its full weight
  load_factor           percent; how far bounded_hash exceeds the fair share
  protect               true: the expiry governor may hold instances`,
		Example: `  muster settings web
  muster settings web strategy=least_request slow_start=30s
  muster settings batch protect=false --reason "comes and goes by design"
  muster settings web --reset`,
		Args: cobra.MinimumNArgs(1),

		ValidArgsFunction: complete(g, serviceNames, settingKeys),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reset && len(args) > 1 {
				return usageError("--reset goes without KEY=VALUE")
			}
			a, err := newAPI(g)
			if err != nil {
				return err
			}
			path, q := servicePath(args[0], "settings"), query("namespace", namespace, "reason", reason)
			if reset {
				h, err := a.call(cmd.Context(), "DELETE", path, q, nil, nil)
				if err != nil {
					return err
				}
				return said(cmd, g, h.Get("Muster-Index"), "%s has the default settings", args[0])
			}
			settings, err := currentSettings(cmd, a, path, namespace, len(args) > 1)
			if err != nil {
				return err
			}
			if len(args) > 1 {
				for _, kv := range args[1:] {
					if err := setSetting(settings, kv); err != nil {
						return err
					}
				}
				if _, err := a.call(cmd.Context(), "PUT", path, q, settings, &settings); err != nil {
					return err
				}
			}
			if g.output == "json" {
				return printJSON(cmd, settings)
			}
			return printSettings(cmd, settings)
		},
	}
	namespaceFlag(cmd, &namespace)
	reasonFlag(cmd, &reason)
	cmd.Flags().BoolVar(&reset, "reset", false, "take the service's own settings away; the defaults hold again")
	return cmd
}

// settingNames are the names of the settings, in the order in which they are shown.
var settingNames = []string{
	"strategy", "panic_threshold", "zone_threshold", "max_ejected", "consecutive_failures", "failure_rate",
	"ejection_time", "slow_start", "load_factor", "protect",
}

// currentSettings asks for what holds now. What is to be changed of a service
// nobody knows yet starts from the defaults.
func currentSettings(cmd *cobra.Command, a *api, path, namespace string, change bool) (map[string]any, error) {
	q := query("namespace", namespace)
	if change {
		q.Set("consistency", "linearizable")
	}
	var settings map[string]any
	_, err := a.call(cmd.Context(), "GET", path, q, nil, &settings)
	if change && muster.CodeOf(err) == muster.CodeUnknownService {
		return map[string]any{}, nil
	}
	return settings, err
}

// setSetting puts KEY=VALUE into settings as the JSON it stands for. Whether it
// makes sense is for the registry to say.
func setSetting(settings map[string]any, kv string) error {
	k, v, ok := strings.Cut(kv, "=")
	if !ok || k == "" {
		return usageError("%q is not KEY=VALUE", kv)
	}
	if n, err := strconv.Atoi(strings.TrimSuffix(v, "%")); err == nil {
		settings[k] = n
		return nil
	}
	switch _, err := time.ParseDuration(v); {
	case v == "true" || v == "false":
		settings[k] = v == "true"
	case err == nil, k == "strategy":
		settings[k] = v
	default:
		return usageError("%s: %q is neither a number, a duration nor true or false", k, v)
	}
	return nil
}

func printSettings(cmd *cobra.Command, settings map[string]any) error {
	rows := make([][]string, 0, len(settings))
	for _, name := range settingNames {
		if v, ok := settings[name]; ok {
			rows = append(rows, []string{name, fmt.Sprint(v)})
		}
	}
	return table(cmd.OutOrStdout(), "SETTING VALUE", rows)
}

func newGovernor(g *global) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "governor [on|off]",
		Short: "Show or switch what holds instances in a mass loss",
		Long: `The expiry governor holds instances whose leases run out in a mass loss (more
than 10 leases and 15 % of all, or half of a service, within a TTL) instead of
removing them: they are shown as suspect and leave after a minute in slices.

"off" turns it off for the whole cluster; one service is exempted with
"muster settings SERVICE protect=false".`,
		Example: `  muster governor
  muster governor off --reason "drill: half the fleet goes"
  muster governor on`,
		Args: cobra.MaximumNArgs(1),

		ValidArgsFunction: complete(g, words("on", "off")),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := newAPI(g)
			if err != nil {
				return err
			}
			var out json.RawMessage
			switch {
			case len(args) == 0:
				_, err = a.call(cmd.Context(), "GET", "/v1/cluster/governor", nil, nil, &out)
			case args[0] == "on" || args[0] == "off":
				body := map[string]bool{"enabled": args[0] == "on"}
				_, err = a.call(cmd.Context(), "PUT", "/v1/cluster/governor", query("reason", reason), body, &out)
			default:
				err = usageError("%q is neither on nor off", args[0])
			}
			if err != nil {
				return err
			}
			if g.output == "json" {
				return printJSON(cmd, out)
			}
			var state muster.Governor
			if err := json.Unmarshal(out, &state); err != nil {
				return fmt.Errorf("reading the answer: %w", err)
			}
			return printGovernor(cmd, state)
		},
	}
	reasonFlag(cmd, &reason)
	return cmd
}

func printGovernor(cmd *cobra.Command, s muster.Governor) error {
	line := "the governor is on"
	if !s.Enabled {
		line = "the governor is OFF: in a mass loss every instance goes at once"
	}
	line += fmt.Sprintf("; it holds %d instances", s.Suspects)
	if !s.Since.IsZero() {
		line += fmt.Sprintf(" (switched %s by %s", s.Since.Local().Format("2006-01-02 15:04:05"), s.Actor)
		if s.Reason != "" {
			line += ": " + s.Reason
		}
		line += ")"
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), line)
	return err
}
