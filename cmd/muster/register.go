package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-registry/muster"
)

// instanceFlags are the flags that describe an instance.
type instanceFlags struct {
	namespace, ttl, onExpiry string
	inst                     muster.Instance
	removeAfter              time.Duration
	meta, checks             []string
}

// add adds the flags to a verb; id and address say what is done without them.
func (i *instanceFlags) add(cmd *cobra.Command, id, address string) {
	namespaceFlag(cmd, &i.namespace)
	f := cmd.Flags()
	f.StringVar(&i.inst.ID, "id", "", "id of the instance; "+id)
	f.StringVar(&i.inst.Address, "address", "", "IP address or host name"+address)
	f.IntVar(&i.inst.Port, "port", 0, "port, 1 to 65535")
	f.StringVar(&i.inst.Version, "version", "", "version of the software")
	f.StringVar(&i.inst.Zone, "zone", "", "zone it runs in")
	f.IntVar(&i.inst.Weight, "weight", muster.DefaultWeight, "share of the traffic, 0 to 65535")
	f.StringSliceVar(&i.inst.Tags, "tag", nil, "a tag (repeat for more)")
	f.StringSliceVar(&i.meta, "meta", nil, "metadata KEY=VALUE (repeat for more)")
	f.StringVar(&i.ttl, "ttl", "", `life after the last heartbeat, 1s to 24h, or "none" (default 15s)`)
	f.StringVar(&i.onExpiry, "on-expiry", "", "remove or down: what becomes of it when the ttl runs out")
	f.DurationVar(&i.removeAfter, "remove-after", 0, "with --on-expiry down: how long it is kept")
	f.StringArrayVar(&i.checks, "check", nil, "a health check: http:/path, tcp, tcp:PORT, grpc, grpc:SERVICE, service:NAME (repeat for more)")
}

// instance is what the flags describe.
func (i *instanceFlags) instance(service string) (muster.Instance, error) {
	inst := i.inst
	inst.Namespace, inst.Service = i.namespace, service
	inst.OnExpiry, inst.RemoveAfter = muster.OnExpiry(i.onExpiry), muster.Duration(i.removeAfter)
	var err error
	if i.ttl != "" {
		if inst.TTL, err = muster.ParseTTL(i.ttl); err != nil {
			return inst, err
		}
	}
	if inst.Meta, err = parseMeta(i.meta); err != nil {
		return inst, err
	}
	for _, c := range i.checks {
		check, err := parseCheck(c)
		if err != nil {
			return inst, err
		}
		inst.Checks = append(inst.Checks, check)
	}
	return inst, nil
}

// endpointID is the id of an instance that was given none and is kept alive by this
// command: where it answers, so that the same one started again takes the place of
// the one before it.
func endpointID(i *muster.Instance) string {
	id := net.JoinHostPort(i.Address, strconv.Itoa(i.Port))
	return strings.TrimLeft(strings.NewReplacer("[", "", "]", "").Replace(id), ":")
}

func newRegister(g *global) *cobra.Command {
	var flags instanceFlags
	var reason string
	var stay bool
	cmd := &cobra.Command{
		Use:   "register SERVICE",
		Short: "Register an instance of a service",
		Long: `Register an instance, or replace the one of the same id.

With a ttl the instance wants a heartbeat within every ttl. --keep sends them for as
long as this command runs, registers the instance again when the registry has lost
it, and deregisters it at the end; the registry need not be there yet. With --ttl
none the instance stays until it is deregistered. To keep a program registered for
as long as it runs, use muster run.`,
		Example: `  muster register web --address 10.0.0.5 --port 8080 --ttl none
  muster register web --id web-1 --address 10.0.0.5 --port 8080 --ttl 10s --keep --tag canary
  muster register web --address 10.0.0.5 --port 8080 --check http:/health --check tcp:9100 --keep`,
		Args: cobra.ExactArgs(1),

		ValidArgsFunction: complete(g, serviceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			inst, err := flags.instance(args[0])
			if err != nil {
				return err
			}
			if stay {
				switch {
				case inst.TTL == muster.NoTTL:
					return usageError("--keep goes with a ttl: an instance with --ttl none needs no heartbeats")
				case reason != "":
					return usageError("--reason does not go with --keep")
				}
				return keep(cmd, g, inst)
			}
			a, err := newAPI(g)
			if err != nil {
				return err
			}
			method, path := "POST", servicePath(args[0], "instances")
			if inst.ID != "" {
				method, path = "PUT", instancePath(args[0], inst.ID)
			}
			var out muster.Instance
			if _, err := a.call(cmd.Context(), method, path, query("namespace", flags.namespace, "reason", reason), registration(&inst), &out); err != nil {
				return err
			}
			if g.output == "json" {
				return printJSON(cmd, out)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "registered %s/%s/%s at %s:%d (index %d)\n", out.Namespace, out.Service, out.ID, out.Address, out.Port, out.ModifyIndex)
			return err
		},
	}
	flags.add(cmd, "made by the registry when absent, of address and port with --keep", "")
	cmd.Flags().BoolVar(&stay, "keep", false, "keep the instance registered until this command ends, then deregister it")
	reasonFlag(cmd, &reason)
	require(cmd, "address", "port")
	return cmd
}

// require makes flags required.
func require(cmd *cobra.Command, flags ...string) {
	for _, name := range flags {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
}

// registration is the body of a registration: what the owner sends, and nothing
// of the registry's.
func registration(i *muster.Instance) map[string]any {
	m := map[string]any{"address": i.Address, "port": i.Port, "weight": i.Weight}
	set := func(name string, v any, isSet bool) {
		if isSet {
			m[name] = v
		}
	}
	set("version", i.Version, i.Version != "")
	set("zone", i.Zone, i.Zone != "")
	set("tags", i.Tags, len(i.Tags) > 0)
	set("meta", i.Meta, len(i.Meta) > 0)
	set("ttl", i.TTL, !i.TTL.IsZero())
	set("on_expiry", i.OnExpiry, i.OnExpiry != "")
	set("remove_after", i.RemoveAfter, i.RemoveAfter != 0)
	set("checks", i.Checks, len(i.Checks) > 0)
	return m
}

func parseMeta(pairs []string) (map[string]string, error) {
	m := map[string]string{}
	for _, kv := range pairs {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, usageError("--meta %q is not KEY=VALUE", kv)
		}
		m[k] = v
	}
	return m, nil
}

func parseCheck(s string) (muster.Check, error) {
	kind, rest, _ := strings.Cut(s, ":")
	c := muster.Check{Type: muster.CheckType(kind)}
	switch c.Type {
	case muster.CheckHTTP:
		c.Path = rest
	case muster.CheckGRPC, muster.CheckService:
		c.Service = rest
	case muster.CheckTCP:
		if rest != "" {
			port, err := strconv.Atoi(rest)
			if err != nil {
				return c, usageError("--check %q: %q is not a port", s, rest)
			}
			c.Port = port
		}
	default:
		return c, usageError("--check %q is none of http:/path, tcp[:PORT], grpc[:SERVICE], service:NAME", s)
	}
	return c, nil
}
