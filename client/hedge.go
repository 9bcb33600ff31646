package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/muster-registry/muster/balancer"
)

// errHedged is the cause of the end of an attempt whose twin answered first.
var errHedged = errors.New("the other attempt answered first")

// send picks an instance that was not tried yet and sends the call to it; where it
// takes long, and that is wanted and safe, to another one beside it. The error says
// why there is nobody to send it to.
func (k *call) send(ctx context.Context) (*sent, error) {
	first, body, err := k.next()
	if err != nil {
		return nil, err
	}
	hedge := k.t.c.cfg.Calls.Hedge
	if hedge == 0 || !k.safe || !k.whole || k.sends >= k.t.c.cfg.Calls.Attempts {
		return k.one(ctx, first, body), nil
	}
	r := &race{k: k, results: make(chan lane), over: make(chan struct{})}
	if err := r.run(ctx, first, body); err != nil {
		k.name.watch.Drop(first)
		if body != nil {
			_ = body.Close() // the client is closed
		}
		return nil, err
	}
	return r.first(ctx, hedge), nil
}

// next picks an instance, and makes the body to send.
func (k *call) next() (balancer.Choice, io.ReadCloser, error) {
	choice, err := k.name.watch.pick(&k.by, k.tried, true)
	if err != nil {
		return choice, nil, err
	}
	body := k.r.Body
	if k.bodyUsed && body != nil && body != http.NoBody {
		if body, err = k.r.GetBody(); err != nil {
			k.name.watch.Drop(choice)
			return choice, nil, fmt.Errorf("having the body of the request again: %w", err)
		}
	}
	k.bodyUsed = true
	k.sends++
	if !contains(k.tried, choice.Instance.ID) {
		k.tried = append(k.tried, choice.Instance.ID)
	}
	return choice, body, nil
}

// race is a call on its way to one or two instances at the same time.
type race struct {
	k       *call
	results chan lane
	over    chan struct{} // closed when the winner is known
	lanes   []context.CancelCauseFunc
}

// lane is one of the attempts of a race, and what came of it.
type lane struct {
	n int
	s *sent
}

// run sends the call in a goroutine of the client's.
func (r *race) run(ctx context.Context, choice balancer.Choice, body io.ReadCloser) error {
	ctx, cancel := context.WithCancelCause(ctx)
	n := len(r.lanes)
	err := r.k.t.c.start(ctx, func(closing context.Context) {
		// The context goes on after this goroutine, for the answer's body.
		stop := context.AfterFunc(closing, func() { cancel(context.Cause(closing)) })
		s := r.k.one(ctx, choice, body)
		stop()
		select {
		case r.results <- lane{n, s}:
		case <-r.over:
			r.k.giveUp(s)
		}
	})
	if err != nil {
		cancel(err)
		return err
	}
	r.lanes = append(r.lanes, cancel)
	return nil
}

// first waits for an answer that counts, and ends the others.
func (r *race) first(ctx context.Context, hedge time.Duration) *sent {
	defer close(r.over)
	timer := time.NewTimer(hedge)
	defer timer.Stop()
	running := 1
	for {
		select {
		case <-timer.C:
			if r.second(ctx) {
				running++
			}
		case l := <-r.results:
			if running--; running > 0 && (l.s.err != nil || isRetryable(l.s.resp.StatusCode)) {
				r.k.giveUp(l.s) // the other one may do better
				continue
			}
			r.settle(l)
			return l.s
		}
	}
}

// second sends the call to another instance, if there is one and the budget allows.
func (r *race) second(ctx context.Context) bool {
	k := r.k
	if !k.others() || !k.name.budget.spend(time.Now()) {
		return false
	}
	choice, body, err := k.next()
	if err != nil {
		return false
	}
	if err := r.run(ctx, choice, body); err != nil {
		k.name.watch.Drop(choice)
		if body != nil {
			_ = body.Close() // the client is closed
		}
		return false
	}
	return true
}

// settle ends the attempts that lost. The winner's context goes on until its body is
// closed.
func (r *race) settle(won lane) {
	for n, cancel := range r.lanes {
		if n != won.n {
			cancel(errHedged)
		}
	}
	cancel, end := r.lanes[won.n], won.s.end
	if won.s.err != nil {
		cancel(nil)
		return
	}
	won.s.end = func(o balancer.Outcome, unknown bool) {
		end(o, unknown)
		cancel(nil)
	}
}
