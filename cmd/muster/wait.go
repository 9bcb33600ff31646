package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
	"github.com/muster-registry/muster/problem"
)

const (
	// waitHold is how long one question of muster wait is held by a node.
	waitHold = 30 * time.Second
	// waitPace is the pause between two looks, however often a service changes.
	waitPace = 100 * time.Millisecond
	// waitRetry is the pause after a question that no node answered.
	waitRetry = time.Second
	// waitLook bounds one question, so that people learn why there is no answer.
	waitLook = 3 * time.Second
	// waitLast bounds the last look, after the time has run out.
	waitLast = 3 * time.Second
)

func newWait(g *global) *cobra.Command {
	w := waiter{}
	cmd := &cobra.Command{
		Use:   "wait SERVICE",
		Short: "Wait until enough instances of a service are there",
		Long: `Wait until at least --count instances of a service match and may be given traffic,
and then end with exit code 0. What is there is said on stderr whenever it changes.
When --timeout has passed the exit code is 1, and the message says what is there.

Every count is one that was true when it was asked for, on whichever node
(consistency=linearizable); between changes nothing is asked. The registry need not
answer yet, and the service need not be known.`,
		Example: `  muster wait web
  muster wait web --count 3 --version v2 --timeout 60s && ./switch-over
  muster wait db --zone eu-1a --tag primary --healthy --timeout 0`,
		Args: cobra.ExactArgs(1),

		ValidArgsFunction: complete(g, serviceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if w.count < 1 {
				return usageError("--count %d is less than one", w.count)
			}
			if w.timeout < 0 {
				return usageError("--timeout %s is negative", w.timeout)
			}
			return w.run(cmd, g, args[0])
		},
	}
	namespaceFlag(cmd, &w.namespace)
	w.only.narrow(cmd, "only instances of this zone")
	f := cmd.Flags()
	f.IntVar(&w.count, "count", 1, "how many instances, at least")
	f.DurationVar(&w.timeout, "timeout", 5*time.Minute, "how long to wait; 0 waits for as long as it takes")
	f.BoolVar(&w.healthy, "healthy", false, "count what is up, also where it gets no traffic (weight 0)")
	return cmd
}

// waiter is the verb wait.
type waiter struct {
	namespace string
	only      filters
	count     int
	timeout   time.Duration
	healthy   bool

	cmd    *cobra.Command
	client *client.Client
	query  muster.Query
	said   string // the last progress
}

// matched is what muster wait prints for programs.
type matched struct {
	Namespace string             `json:"namespace"`
	Service   string             `json:"service"`
	Wanted    int                `json:"wanted"`
	Count     int                `json:"count"`
	Index     uint64             `json:"index"`
	Instances []*muster.Instance `json:"instances"`
}

func (w *waiter) run(cmd *cobra.Command, g *global, service string) error {
	var err error
	if w.only.status, w.only.routable = "", !w.healthy; w.healthy {
		w.only.status = string(muster.StatusUp)
	}
	if w.query, err = w.only.query(); err != nil {
		return err
	}
	if w.client, err = newClient(g); err != nil {
		return err
	}
	defer w.client.Close()
	w.cmd = cmd
	ctx := cmd.Context()
	if w.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, w.timeout)
		defer cancel()
	}
	view, err := w.wait(ctx, service)
	switch {
	case err == nil && g.output == "json":
		return printJSON(cmd, matched{view.Namespace, view.Service, w.count, len(view.Instances), view.Index, view.Instances})
	case err == nil:
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", w.wanted(len(view.Instances), service))
		return err
	case cmd.Context().Err() != nil:
		return fmt.Errorf("interrupted while waiting: %s", w.said)
	case ctx.Err() != nil:
		return w.timedOut(service)
	}
	return err
}

// wait looks, and looks again when something has changed, until there are enough.
func (w *waiter) wait(ctx context.Context, service string) (*muster.View, error) {
	pace := time.NewTimer(0)
	defer pace.Stop()
	for {
		select {
		case <-pace.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		pace.Reset(waitPace)
		view, index, err := w.look(ctx, service)
		switch {
		case err == nil && len(view.Instances) >= w.count:
			return view, nil
		case err == nil:
			w.progress(fmt.Sprintf("%d of %s", len(view.Instances), w.wanted(w.count, service)))
			err = w.change(ctx, service, index)
		}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err == nil:
		case hopeless(err):
			return nil, err
		default:
			w.progress(brief(err))
			pace.Reset(waitRetry)
		}
	}
}

// hopeless reports whether the same question will never be answered.
func hopeless(err error) bool {
	e, ok := errors.AsType[*muster.Error](err)
	return !ok || e.Code != client.CodeUnreachable && e.Code != muster.CodeRateLimited && problem.Status(e.Code) < 500
}

// look counts what is true now. A service that nothing is known of has no instances.
func (w *waiter) look(ctx context.Context, service string) (*muster.View, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, waitLook)
	defer cancel()
	var info muster.ReadInfo
	view, err := w.client.Service(ctx, service, w.options(client.Where(w.query), client.Linearizable(), client.Info(&info))...)
	if muster.CodeOf(err) == muster.CodeUnknownService {
		return &muster.View{Service: service}, info.Index, nil
	}
	if err != nil {
		return nil, 0, err
	}
	return view, view.Index, nil
}

// change waits until something of the service is newer than index.
func (w *waiter) change(ctx context.Context, service string, index uint64) error {
	hold := waitHold
	if end, ok := ctx.Deadline(); ok { // room for the answer, and for the jitter
		hold = min(hold, max(time.Until(end)*15/16-time.Second, 100*time.Millisecond))
	}
	_, err := w.client.Service(ctx, service, w.options(client.Where(w.query), client.After(max(index, 1), hold))...)
	switch muster.CodeOf(err) {
	case muster.CodeUnknownService, muster.CodeCursorGone:
		return nil // look again
	}
	return err
}

func (w *waiter) options(more ...client.Option) []client.Option {
	if w.namespace != "" {
		more = append(more, client.In(w.namespace))
	}
	return more
}

// progress tells people, once, where things stand.
func (w *waiter) progress(text string) {
	if text != w.said {
		fmt.Fprintf(w.cmd.ErrOrStderr(), "muster: waiting: %s\n", text)
		w.said = text
	}
}

// wanted says in words what n of is wanted.
func (w *waiter) wanted(n int, service string) string {
	text := "routable instance"
	if w.healthy {
		text = "healthy instance"
	}
	text = plural(n, text) + " of " + service
	var with []string
	for _, kv := range [][2]string{{"version", w.only.version}, {"zone", w.only.zone}, {"filter", w.only.filter}} {
		if kv[1] != "" {
			with = append(with, kv[0]+" "+kv[1])
		}
	}
	for _, t := range w.only.tags {
		with = append(with, "tag "+t)
	}
	with = append(with, w.only.meta...)
	if len(with) > 0 {
		text += " (" + strings.Join(with, ", ") + ")"
	}
	return text
}

// timedOut says what is there instead.
func (w *waiter) timedOut(service string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.cmd.Context()), waitLast)
	defer cancel()
	head := fmt.Sprintf("waited %s for %s: ", w.timeout, w.wanted(w.count, service))
	view, err := w.client.Service(ctx, service, w.options()...)
	switch {
	case muster.CodeOf(err) == muster.CodeUnknownService:
		return errors.New(head + "the registry knows nothing of such a service")
	case err != nil:
		// Not wrapped: what is to be shown is the whole, not the coded error in it.
		return errors.New(head + "the registry cannot say what is there: " + brief(err))
	case len(view.Instances) == 0:
		return fmt.Errorf("%sthere are none (%s)", head, view.EmptyReason)
	}
	have := len(slices.DeleteFunc(slices.Clone(view.Instances), func(i *muster.Instance) bool { return !w.query.Match(i) }))
	if w.query.Filter == "" {
		head += fmt.Sprintf("%d such, %d others:", have, len(view.Instances)-have)
	} else {
		head += "there is:"
	}
	const most = 20
	lines := []string{head}
	for n, i := range view.Instances {
		if n == most {
			lines = append(lines, fmt.Sprintf("  and %d more", len(view.Instances)-most))
			break
		}
		lines = append(lines, "  "+describe(i))
	}
	return errors.New(strings.Join(lines, "\n"))
}

// plural counts things in words.
func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// describe says in a line how an instance fares.
func describe(i *muster.Instance) string {
	text := fmt.Sprintf("%s at %s:%d is %s (%s, %s)", i.ID, i.Address, i.Port, state(i), i.StatusCause, ago(i.StatusSince))
	for _, kv := range [][2]string{{"version", i.Version}, {"zone", i.Zone}, {"tags", strings.Join(i.Tags, ",")}, {"checks", checksOf(i)}} {
		if kv[1] != "" {
			text += ", " + kv[0] + " " + kv[1]
		}
	}
	if i.Weight == 0 {
		text += ", weight 0"
	}
	return text
}
