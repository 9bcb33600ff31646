package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-registry/muster"
)

func newPick(g *global) *cobra.Command {
	p := picker{}
	cmd := &cobra.Command{
		Use:   "pick SERVICE [--exec -- COMMAND...]",
		Short: "Pick one instance of a service, and run a command with it",
		Long: `Pick one instance of a service and print its address.

With --exec the command after "--" is run with the picked instance in its
environment, on this command's own input and output. Signals are passed on to it,
and its exit code becomes that of this command (128 plus the signal that ended it,
127 where it is not found, 126 where it cannot be run):

  MUSTER_PICKED_ADDRESS    the address, an IP (IPv6 without brackets) or a host name
  MUSTER_PICKED_PORT       the port
  MUSTER_PICKED_INSTANCE   the id of the instance
  MUSTER_PICKED_SERVICE    the name of the service
  MUSTER_PICKED_NAMESPACE  its namespace

The registry learns what became of the pick: exit code 0 is a success, any other a
failure of the instance, and how long the command ran is the latency. A command
that was asked to end by a signal, and one that cannot be run, say nothing against
the instance. The pick counts as in flight while the command runs, for 10 minutes
at most; how a longer one ended is reported all the same.`,
		Example: `  muster pick web
  muster pick web --strategy consistent_hash --key user-4711
  muster pick web --zone prefer:eu-1a --tag canary -n 3 -o json
  muster pick web --exec -- sh -c 'curl -fsS http://$MUSTER_PICKED_ADDRESS:$MUSTER_PICKED_PORT/health'`,
		Args: commandArgs(1, "service"),

		ValidArgsFunction: complete(g, serviceNames, files),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := newAPI(g)
			if err != nil {
				return err
			}
			q := query("namespace", p.namespace, "strategy", p.strategy, "key", p.key)
			p.only.into(q)
			if !p.exec {
				if len(args) > 1 {
					return usageError("to run %q with the picked instance, say --exec", args[1])
				}
				return p.print(cmd, g, a, args[0], q)
			}
			switch {
			case len(args) < 2:
				return usageError("--exec wants a command: muster pick %s --exec -- COMMAND", args[0])
			case cmd.Flags().Changed("n"):
				return usageError("-n does not go with --exec, which runs one command with one instance")
			}
			return p.run(cmd, a, args[0], q, args[1:])
		},
	}
	namespaceFlag(cmd, &p.namespace)
	p.only.flags(cmd, "only instances of this zone; prefer:ZONE prefers it and spills over")
	f := cmd.Flags()
	f.StringVar(&p.strategy, "strategy", "", "how to choose: "+strings.Join(muster.StrategyNames(), ", ")+" (default: the service's own)")
	f.StringVar(&p.key, "key", "", "what the hash strategies go by: equal keys meet the same instance")
	f.IntVarP(&p.count, "n", "n", 1, "how many distinct instances, at most 100")
	f.BoolVar(&p.exec, "exec", false, "run the command after -- with the picked instance in its environment")
	return cmd
}

// picker is the verb pick.
type picker struct {
	namespace, strategy, key string
	only                     filters
	count                    int
	exec                     bool
}

// print picks and prints.
func (p *picker) print(cmd *cobra.Command, g *global, a *api, service string, q url.Values) error {
	if cmd.Flags().Changed("n") {
		q.Set("n", strconv.Itoa(p.count))
	}
	var got muster.Pick
	if _, err := a.call(cmd.Context(), http.MethodGet, servicePath(service, "pick"), q, nil, &got); err != nil {
		return err
	}
	if g.output == "json" {
		return printJSON(cmd, got)
	}
	if len(got.Instances) == 0 {
		got.Instances = []*muster.Instance{got.Instance}
	}
	for _, i := range got.Instances {
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), net.JoinHostPort(i.Address, strconv.Itoa(i.Port))); err != nil {
			return err
		}
	}
	return nil
}

// run picks, runs a command and reports how it went.
func (p *picker) run(cmd *cobra.Command, a *api, service string, q url.Values, command []string) error {
	path, err := findCommand(command[0])
	if err != nil {
		return err // before anything counts as in flight
	}
	q.Set("ticket_ttl", muster.MaxTicketTTL.String())
	var got muster.Pick
	if _, err := a.call(cmd.Context(), http.MethodPost, servicePath(service, "pick"), q, nil, &got); err != nil {
		return err
	}
	if got.Instance == nil || got.Ticket == "" {
		return errors.New("the answer is not what a Muster node sends: it has no instance or no ticket")
	}
	i := got.Instance
	start := time.Now()
	var end ended
	c, failed := startChild(cmd, path, command, instanceEnv("PICKED", i))
	if failed == nil {
		end, failed = c.wait(nil)
	}
	r := muster.PickReport{Outcome: muster.PickSuccess, Latency: muster.Duration(time.Since(start))}
	switch {
	case failed != nil, end.code != 0 && end.asked:
		r.Latency = 0 // no fault of the instance's, and no measure of it
	case end.code != 0:
		r.Outcome = muster.PickFailure
	}
	if err := report(cmd.Context(), a, &got, r); err != nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "muster: the registry was not told how it went")
		printError(cmd.ErrOrStderr(), err)
	}
	if failed != nil {
		return failed
	}
	if end.code != 0 {
		return childExit(end.code)
	}
	return nil
}

// reportTimeout bounds the wait for a report, during which the user waits too.
const reportTimeout = 5 * time.Second

// report says what became of a pick, without the ticket where that is not known any
// more. A signal that ended the command does not end it.
func report(ctx context.Context, a *api, p *muster.Pick, r muster.PickReport) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
	defer cancel()
	_, err := a.call(ctx, http.MethodPost, "/v1/picks/"+url.PathEscape(p.Ticket), nil, r, nil)
	if !errors.Is(err, muster.CodeUnknownTicket) {
		return err
	}
	o := muster.OutcomesReport{Latency: r.Latency}
	if r.Outcome == muster.PickFailure {
		o.Failures = 1
	} else {
		o.Successes = 1
	}
	i := p.Instance
	_, err = a.call(ctx, http.MethodPost, instancePath(i.Service, i.ID, "outcomes"), query("namespace", i.Namespace), o, nil)
	return err
}
