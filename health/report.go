package health

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/muster-registry/muster"
)

const (
	methodReport = "health/report"
	// lookEvery is how often a node looks whether there is another leader.
	lookEvery = 100 * time.Millisecond
	// gatherFor is how long opinions gather before they are sent together.
	gatherFor = 20 * time.Millisecond
	// retryAfter is the pause after a report that did not arrive or was missed, and
	// after a decision that was not applied.
	retryAfter = 200 * time.Millisecond
	// callTimeout bounds one report.
	callTimeout = 2 * time.Second
)

// reportLoop tells the leader what this node holds of its checks: news at once, a
// sign of life now and then, and all of it to a new leader.
func (s *Supervisor) reportLoop(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var last string // the leader that took the last report
	var sent time.Time
	for ctx.Err() == nil {
		leader, _ := s.deps.Raft.Leader()
		due := leader != last || time.Since(sent) >= s.cfg.ReportEvery || s.hasNews()
		pause := time.Duration(0)
		if leader != "" && due && s.deps.Raft.Ready() {
			pause = gatherFor
			more, err := s.report(ctx, leader)
			if last, sent = leader, time.Now(); err != nil {
				s.log.Debug("report not taken", "leader", leader, "err", err)
				s.metrics.reports.WithLabelValues("failed").Inc()
				last, pause = "", retryAfter
			} else {
				s.metrics.reports.WithLabelValues("taken").Inc()
			}
			if more {
				poke(s.news)
			}
		}
		if pause > 0 && !sleep(ctx, pause) {
			return
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-s.news:
		}
	}
}

func (s *Supervisor) hasNews() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.dirty) > 0
}

// report sends what the leader has not heard, up to maxReport opinions. more says
// that there is more to send at once.
func (s *Supervisor) report(ctx context.Context, leader string) (more bool, err error) {
	r, of, spoken := s.compose()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var answer receipt
	if leader == s.deps.Raft.ID() {
		answer, err = s.hear(leader, &r, time.Now())
	} else {
		answer, err = s.send(ctx, leader, &r)
	}
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !answer.missed {
		for n, p := range of {
			if p.spoken == spoken[n] {
				delete(s.dirty, p)
			}
		}
	}
	again := s.adopt(&answer, time.Now())
	if answer.missed {
		return again, errMissed
	}
	return len(s.dirty) > 0, nil
}

var errMissed = errors.New("health: the leader does not know an instance yet")

func (s *Supervisor) send(ctx context.Context, leader string, r *report) (receipt, error) {
	body, err := s.deps.Peers.Call(ctx, leader, methodReport, r.encode())
	if err != nil {
		return receipt{}, fmt.Errorf("reporting to %s: %w", leader, err)
	}
	return decodeReceipt(body)
}

// compose makes a report of what is dirty.
func (s *Supervisor) compose() (r report, of []*probe, spoken []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.boot = s.boot
	for p := range s.dirty {
		if len(of) == maxReport {
			break
		}
		of, spoken = append(of, p), append(spoken, p.spoken)
		r.opinions = append(r.opinions, opinion{
			key: p.t.key, life: p.t.inst.ChecksFrom, place: p.place, status: p.machine.State,
			cause: p.last.Cause, output: p.last.Output, latency: p.last.Latency,
		})
	}
	return r, of, spoken
}

// handleReport takes another node's report.
func (s *Supervisor) handleReport(_ context.Context, from string, body []byte) ([]byte, error) {
	r, err := decodeReport(body)
	if err != nil {
		return nil, err
	}
	answer, err := s.hear(from, &r, time.Now())
	if err != nil {
		return nil, err
	}
	return answer.encode(), nil
}

// hear takes a report, where this node leads.
func (s *Supervisor) hear(from string, r *report, now time.Time) (receipt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ss := s.session
	if ss == nil || ss.ctx.Err() != nil {
		return receipt{}, muster.Errorf(muster.CodeNoLeader, "this node does not lead")
	}
	ss.alive(from, r.boot, now)
	answer := receipt{term: ss.term, version: ss.version, probers: slices.Clone(ss.set.ids)}
	for _, o := range r.opinions {
		t := s.roster[o.key]
		if t == nil || t.inst.ChecksFrom != o.life || o.place >= len(t.inst.Checks) {
			answer.missed = true
			continue
		}
		ss.docket(t, now).hear(from, o)
		ss.touch(t)
	}
	return answer, nil
}

// sleep waits for d; false: ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
