package lease_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/lease"
)

// TestRenewalMeetsExpiry: a renewal of a lease whose expiry is in flight waits for
// the outcome.
func TestRenewalMeetsExpiry(t *testing.T) {
	type outcome = func(r *rig) func(lease.Decision) (uint64, error)
	fixed := func(f func(lease.Decision) (uint64, error)) outcome {
		return func(*rig) func(lease.Decision) (uint64, error) { return f }
	}
	removed := func(r *rig) func(lease.Decision) (uint64, error) { return r.remove }
	skipped := func(r *rig) func(lease.Decision) (uint64, error) { return r.skip }
	for name, c := range map[string]struct {
		outcomes []outcome // nil: deposed
		want     lease.Standing
		err      error
	}{
		"removed":                        {[]outcome{removed}, lease.BeatUnknown, nil},
		"skipped":                        {[]outcome{skipped}, lease.BeatRenewed, nil},
		"refused":                        {[]outcome{fixed(refuse)}, lease.BeatRenewed, nil},
		"unknown, then removed":          {[]outcome{fixed(unknown), removed}, lease.BeatUnknown, nil},
		"unknown, then skipped":          {[]outcome{fixed(unknown), skipped}, lease.BeatRenewed, nil},
		"unknown, refused, then removed": {[]outcome{fixed(unknown), fixed(refuse), removed}, lease.BeatUnknown, nil},
		"unknown, refused, then skipped": {[]outcome{fixed(unknown), fixed(refuse), skipped}, lease.BeatRenewed, nil},
		"leadership lost":                {nil, 0, muster.CodeNoLeader},
	} {
		t.Run(name, func(t *testing.T) {
			rigged(t, 1, 2*time.Second, func(r *rig) {
				d := <-r.asked
				if d.Kind != lease.Expire || len(d.Leases) != 1 || d.Leases[0].Generation != 1 {
					r.t.Fatalf("decided %+v, want the expiry of one lease of generation 1", d)
				}
				type result struct {
					state lease.Standing
					err   error
				}
				got := make(chan result, 1)
				go func() {
					state, err := r.beat()
					got <- result{state, err}
				}()
				synctest.Wait()
				if len(got) != 0 {
					r.t.Fatal("the renewal did not wait for the expiry in flight")
				}
				for i, o := range c.outcomes {
					if i > 0 {
						<-r.asked // proposed again
					}
					r.answer <- o(r)
				}
				if c.outcomes == nil {
					r.depose()
				}
				res := <-got
				if !errors.Is(res.err, c.err) || res.state != c.want {
					r.t.Errorf("got %v, %v; want %v, %v", res.state, res.err, c.want, c.err)
				}
			})
		})
	}
}

// TestOutcomeIsReadOnceObserved answers a decision before its entry is observed:
// the lease still stands in the ledger, and is not renewed for it.
func TestOutcomeIsReadOnceObserved(t *testing.T) {
	rigged(t, 1, 2*time.Second, func(r *rig) {
		d := <-r.asked
		r.answer <- func(lease.Decision) (uint64, error) { return r.index + 1, nil }
		synctest.Wait()
		got := make(chan lease.Standing, 1)
		go func() {
			state, err := r.beat()
			if err != nil {
				r.t.Error(err)
			}
			got <- state
		}()
		synctest.Wait()
		if len(got) != 0 {
			r.t.Fatalf("answered %v before the outcome was observed", <-got)
		}
		if _, err := r.remove(d); err != nil {
			r.t.Fatal(err)
		}
		if state := <-got; state != lease.BeatUnknown {
			r.t.Errorf("got %v, want unknown", state)
		}
	})
}

// TestNoMajorityNoAnswer: neither "renewed" nor "unknown" is said by a leader that
// a majority does not stand behind, or that has seen a later term itself.
func TestNoMajorityNoAnswer(t *testing.T) {
	for name, c := range map[string]func(r *rig){
		"two of three do not answer":  func(r *rig) { r.mu.Lock(); r.others = []string{"b", "c"}; r.mu.Unlock() },
		"its own term is a later one": func(r *rig) { r.later.Store(1) },
	} {
		t.Run(name, func(t *testing.T) {
			rigged(t, 1, time.Hour, func(r *rig) {
				synctest.Wait()
				if state, err := r.beat(); err != nil || state != lease.BeatRenewed {
					r.t.Fatalf("before: %v, %v", state, err)
				}
				c(r)
				for _, id := range []muster.LeaseID{r.leases[0].ID, muster.MakeLeaseID(99, 0)} {
					a, err := r.Beat(r.t.Context(), []lease.Name{{Lease: id}})
					if !errors.Is(err, muster.CodeNoLeader) {
						r.t.Errorf("beat of %v: got %+v, %v; want no_leader", id, a, err)
					}
				}
				if _, err := r.Remaining(r.t.Context(), r.leases[0].ID); !errors.Is(err, muster.CodeNoLeader) {
					r.t.Errorf("remaining: got %v, want no_leader", err)
				}
			})
		})
	}
}

// TestExpiryIsProposedAgain: what was refused comes again, as long as it is due.
func TestExpiryIsProposedAgain(t *testing.T) {
	rigged(t, 1, time.Second, func(r *rig) {
		for range 5 {
			<-r.asked
			r.answer <- refuse
		}
		<-r.asked
		r.answer <- r.remove
		synctest.Wait()
		if left, err := r.Remaining(r.t.Context(), r.leases[0].ID); !errors.Is(err, muster.CodeUnknownLease) {
			r.t.Errorf("remaining of a lease that ended: got %v, %v; want unknown_lease", left, err)
		}
	})
}

// TestExpiriesAreBatched lets 10 % of many leases run out at once.
func TestExpiriesAreBatched(t *testing.T) {
	const n, lost = 100_000, 10_000
	rigged(t, n, 30*time.Second, func(r *rig) {
		wait(r.t.Context(), 10*time.Second)
		for first := lost; first < n; first += muster.MaxHeartbeatItems {
			var names []lease.Name
			for _, l := range r.leases[first : first+muster.MaxHeartbeatItems] {
				names = append(names, lease.Name{Lease: l.ID})
			}
			if _, err := r.Beat(r.t.Context(), names); err != nil {
				r.t.Fatal(err)
			}
		}
		total := 0
		for entries := 1; total < lost; entries++ {
			d := <-r.asked
			if entries > 3 || len(d.Leases) > lease.MaxDecision || d.Kind != lease.Expire {
				r.t.Fatalf("decision %d is %v of %d leases, want at most 3 expiries of at most %d", entries, d.Kind, len(d.Leases), lease.MaxDecision)
			}
			total += len(d.Leases)
			r.answer <- r.remove
		}
		if total != lost {
			r.t.Errorf("%d expired, want %d", total, lost)
		}
	})
}

// TestSheddingSuspendsExpiry: who cannot be heard is not gone.
func TestSheddingSuspendsExpiry(t *testing.T) {
	rigged(t, 1, 5*time.Second, func(r *rig) {
		for range 100 {
			r.NoteShed(1)
			wait(r.t.Context(), 200*time.Millisecond)
		}
		select {
		case d := <-r.asked:
			r.t.Fatalf("decided %v while renewals were shed", d.Kind)
		default:
		}
		began := time.Now()
		<-r.asked
		if took := time.Since(began); took > 8*time.Second {
			r.t.Errorf("expired %v after the shedding ended, want within a TTL and a little", took)
		}
		r.answer <- r.remove
	})
}

// TestHeldLeases: a mass loss is held; what a check confirms dead goes at once,
// and when the governor is turned off the rest goes in slices.
func TestHeldLeases(t *testing.T) {
	rigged(t, 40, 5*time.Second, func(r *rig) {
		d := <-r.asked
		if d.Kind != lease.Suspect || len(d.Leases) != 40 || d.Reason == "" {
			r.t.Fatalf("decided %v of %d leases for %q, want to hold all 40", d.Kind, len(d.Leases), d.Reason)
		}
		r.answer <- r.mark
		wait(r.t.Context(), time.Second)
		r.ConfirmDead([]muster.LeaseID{r.leases[3].ID})
		d = <-r.asked
		if d.Kind != lease.LetGo || len(d.Leases) != 1 || d.Leases[0].ID != r.leases[3].ID {
			r.t.Fatalf("decided %v of %v, want to let go the one that was confirmed dead", d.Kind, d.Leases)
		}
		r.answer <- r.remove
		if state, err := r.beat(); err != nil || state != lease.BeatRenewed {
			r.t.Fatalf("renewal of a held lease: got %v, %v", state, err)
		}
		d = <-r.asked
		if d.Kind != lease.Renewed || len(d.Leases) != 1 {
			r.t.Fatalf("decided %v of %v, want the return of one", d.Kind, d.Leases)
		}
		r.answer <- r.mark
		r.mu.Lock()
		r.off = true
		r.mu.Unlock()
		d = <-r.asked
		if want := 6; d.Kind != lease.LetGo || len(d.Leases) != want { // 15 % of 38
			r.t.Fatalf("decided %v of %d, want a slice of %d", d.Kind, len(d.Leases), want)
		}
		r.answer <- r.remove
	})
}

func TestTimers(t *testing.T) {
	down := lease.Timer{Key: muster.InstanceKey{Service: "a", ID: "1"}, ModifyIndex: 7, RemoveAfter: 10 * time.Minute}
	rigged(t, 0, 0, func(r *rig) {
		synctest.Wait()
		began := time.Now()
		shown := lease.Timer{Key: muster.InstanceKey{Service: "a", ID: "2"}, ModifyIndex: 8, Until: began.Add(time.Minute).Round(0)}
		r.index = 20
		r.Observe(lease.Changes{Index: 20, Timers: []lease.Timer{shown}})
		gone := func(lease.Decision) (uint64, error) {
			r.index++
			r.Observe(lease.Changes{Index: r.index})
			return r.index, nil
		}

		d := <-r.asked
		if at := time.Since(began); d.Kind != lease.EndOverrides || at < time.Minute || at > time.Minute+200*time.Millisecond || d.Timers[0].Key != shown.Key {
			r.t.Fatalf("%v of %v after %v, want the end of the override after a minute", d.Kind, d.Timers, at)
		}
		r.Observe(lease.Changes{Index: r.index, Timers: []lease.Timer{{Key: shown.Key}}})
		r.answer <- gone

		wait(r.t.Context(), 4*time.Minute) // a change of the instance does not start its time again
		down.ModifyIndex = 9
		r.Observe(lease.Changes{Index: r.index, Timers: []lease.Timer{down}})
		d = <-r.asked
		if at := time.Since(began); d.Kind != lease.Reap || at < 10*time.Minute || at > 10*time.Minute+300*time.Millisecond || d.Timers[0].ModifyIndex != 9 {
			r.t.Fatalf("%v of %v after %v, want the removal after ten minutes", d.Kind, d.Timers, at)
		}
		r.answer <- refuse
		<-r.asked // again
		r.answer <- gone
	}, down)
}
