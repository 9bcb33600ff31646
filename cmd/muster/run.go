package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
)

func newRun(g *global) *cobra.Command {
	r := runner{}
	cmd := &cobra.Command{
		Use:   "run SERVICE --port PORT [flags] -- COMMAND...",
		Short: "Run a command and keep it registered while it runs",
		Long: `Run the command after "--" on this command's own input and output, and keep it
registered for as long as it runs. The command starts at once, also while no node
answers: it is registered as soon as one does, and again whenever the registry has
lost it. When it ends it is deregistered, and its exit code becomes that of this
command (128 plus the signal that ended it, 127 where it is not found, 126 where it
cannot be run). How the registration fares is said on stderr.

SIGINT and SIGTERM take the instance out of traffic first: it stays registered with
weight 0 for --drain, is deregistered, and then the command is sent the signal. A
second one, and every other signal, is passed on at once. Ctrl-C on a terminal reaches
the command at the same time as this one. Where this command is killed with -9 the
other runs on, unregistered once the ttl has passed.

A command that takes a while until it answers wants a --check: until that has passed
the instance is unknown and gets no traffic. The command finds in its environment:

  MUSTER_SELF_NAMESPACE  the namespace it is registered in
  MUSTER_SELF_SERVICE    the name of the service
  MUSTER_SELF_INSTANCE   the id of the instance
  MUSTER_SELF_ADDRESS    the address
  MUSTER_SELF_PORT       the port`,
		Example: `  muster run web --port 8080 -- ./server --listen :8080
  muster run web --port 8080 --check http:/health --drain 10s --version 1.4.2 -- ./server
  muster run web --port 8080 -- sh -c './server --listen $MUSTER_SELF_ADDRESS:$MUSTER_SELF_PORT'`,
		Args: commandArgs(1, "service"),

		ValidArgsFunction: complete(g, serviceNames, files),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usageError("there is no command: muster run %s --port PORT -- COMMAND", args[0])
			}
			if r.drain < 0 {
				return usageError("--drain %s is negative", r.drain)
			}
			return r.run(cmd, g, args[0], args[1:])
		},
	}
	r.flags.add(cmd, "made of address and port when absent", " (default: that of the interface towards the registry)")
	cmd.Flags().DurationVar(&r.drain, "drain", time.Second, "how long it stays registered, without new traffic, before the command is told to end")
	require(cmd, "port")
	return cmd
}

// commandArgs asks for own arguments before "--", and for any number after it.
func commandArgs(own int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		got := len(args)
		if dash := cmd.ArgsLenAtDash(); dash >= 0 {
			got = dash
		}
		if got != own {
			return fmt.Errorf("accepts %d %s before --, received %d", own, what, got)
		}
		return nil
	}
}

// runner is the verb run.
type runner struct {
	flags instanceFlags
	drain time.Duration
}

func (r *runner) run(cmd *cobra.Command, g *global, service string, command []string) error {
	path, err := findCommand(command[0])
	if err != nil {
		return err
	}
	inst, err := r.instance(cmd.Context(), g, service)
	if err != nil {
		return err
	}
	c, err := startChild(cmd, path, command, instanceEnv("SELF", &inst))
	if err != nil {
		return err
	}
	k, err := newKept(cmd.Context(), g, inst, cmd.ErrOrStderr())
	if err != nil { // what could be wrong with the instance was found before
		_ = c.cmd.Process.Kill()
		_, _ = c.wait(nil)
		return err
	}
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		if err := k.follow(); err != nil && !k.json {
			printError(cmd.ErrOrStderr(), err)
		}
	}()
	end, err := c.wait(func(ctx context.Context) { r.out(ctx, k) })
	k.close()
	<-followed
	if err != nil {
		return err
	}
	if end.code != 0 {
		return childExit(end.code)
	}
	return nil
}

// instance is what is to be registered, checked before anything is started.
func (r *runner) instance(ctx context.Context, g *global, service string) (muster.Instance, error) {
	inst, err := r.flags.instance(service)
	if err != nil {
		return inst, err
	}
	if inst.Address == "" {
		if inst.Address, err = ownAddress(ctx, g); err != nil {
			return inst, err
		}
	}
	if inst.ID == "" {
		inst.ID = endpointID(&inst)
	}
	trial := inst
	return inst, trial.Normalize()
}

// out takes the instance out of traffic, waits until callers have learnt of it, and
// begins to deregister it. When ctx ends it does not wait.
func (r *runner) out(ctx context.Context, k *kept) {
	defer k.leave()
	if state, _ := k.session.State(); state != client.StateRegistered || r.drain == 0 {
		k.leave()
		select {
		case <-k.session.Done():
		case <-ctx.Done():
		}
		return
	}
	// No override: that would outlive this command, were it killed now, and keep the
	// next one of the same id out of traffic.
	if err := k.session.Update(func(i *muster.Instance) { i.Weight = client.NoTraffic }); err != nil {
		return // it is over already
	}
	k.say("draining", fmt.Sprintf("gets no new traffic; the command is told to end in %s", r.drain), nil)
	t := time.NewTimer(r.drain)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return
	}
	k.leave()
	select {
	case <-k.session.Done():
	case <-ctx.Done():
	}
}

// ownAddress is the address of the interface towards the first node of --addr that
// has a route. Nothing is sent.
func ownAddress(ctx context.Context, g *global) (string, error) {
	a, err := newAPI(g)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var failures []error
	for _, addr := range a.addrs {
		u, err := url.Parse(addr)
		if err != nil {
			return "", fmt.Errorf("reading --addr: %w", err)
		}
		port := u.Port()
		if port == "" {
			port = "80"
		}
		var d net.Dialer
		c, err := d.DialContext(ctx, "udp", net.JoinHostPort(u.Hostname(), port))
		if err != nil {
			failures = append(failures, err)
			continue
		}
		local, err := netip.ParseAddrPort(c.LocalAddr().String())
		_ = c.Close() // nothing was sent
		if err == nil && local.Addr().Zone() == "" {
			return local.Addr().Unmap().String(), nil
		}
	}
	return "", configError("finding the own address: %w\n  no node of --addr has a route from here: give --address", errors.Join(failures...))
}
