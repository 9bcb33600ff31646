package watch

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// tickTime is how often the freshness of the node is looked at.
	tickTime = 500 * time.Millisecond
	// byeTime is the step in which goodbyes are said, byeApart how far apart they
	// are where there are few.
	byeTime  = 20 * time.Millisecond
	byeApart = 5 * time.Millisecond
)

// dispatcher wakes streams. It belongs to Run's goroutine.
type dispatcher struct {
	h       *Hub
	pending []*audience // to be woken later, the first due first
	due     *time.Timer // runs while there are any
	batch   []*Stream   // scratch

	staleTold time.Time

	bye      *time.Ticker // nil before the end
	byeSince time.Time
	byeOver  time.Duration // over how long they are said
	leaving  []*Stream
	told     int // of leaving
}

// Run wakes the streams until ctx ends; then it says goodbye to them, spread over
// a while so that their clients do not all come to the next node at once, and
// returns. It is called once. Changes go on to be told until the goodbye.
func (h *Hub) Run(ctx context.Context) error {
	if h.running.Swap(true) {
		return errors.New("watch: the hub runs already, or has run")
	}
	d := &dispatcher{h: h, due: time.NewTimer(time.Hour)}
	d.due.Stop()
	defer d.due.Stop()
	tick := time.NewTicker(tickTime)
	defer tick.Stop()
	end := ctx.Done()
	var bye <-chan time.Time
	for {
		select {
		case <-h.signal:
			d.dispatch(time.Now())
		case now := <-d.due.C:
			d.wakeDue(now)
		case now := <-tick.C:
			d.refresh(now)
		case <-end:
			end = nil
			d.startGoodbyes(time.Now())
			defer d.bye.Stop()
			bye = d.bye.C
			if len(d.leaving) == 0 {
				return nil
			}
		case now := <-bye:
			if d.sayGoodbyes(now) {
				return nil
			}
		}
	}
}

// dispatch wakes whoever has waited for what was applied.
func (d *dispatcher) dispatch(now time.Time) {
	audiences, everyone := d.h.gather()
	for _, a := range audiences {
		d.notify(a, now)
	}
	if everyone {
		d.rouse(d.h.all())
	}
}

// gather takes what Applied left to wake for.
func (h *Hub) gather() (audiences []*audience, everyone bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	add := func(a *audience) {
		if !a.gathered {
			a.gathered = true
			audiences = append(audiences, a)
		}
	}
	for _, t := range h.touched {
		t.touched = false
		if t.seats > 0 {
			add(&t.audience)
		}
		h.groups.of(t.key, func(g *group) {
			g.last = max(g.last, t.last)
			add(&g.audience)
		})
		h.forget(t)
	}
	for _, a := range audiences {
		a.gathered = false
	}
	clear(h.touched)
	h.touched = h.touched[:0]
	everyone = h.everyone
	h.everyone = false
	return audiences, everyone
}

// all lists the streams.
func (h *Hub) all() []*Stream {
	h.seats.Lock()
	defer h.seats.Unlock()
	list := make([]*Stream, 0, len(h.streams))
	for s := range h.streams {
		list = append(list, s)
	}
	return list
}

// notify wakes an audience now, or where the last time was too recent, later.
func (d *dispatcher) notify(a *audience, now time.Time) {
	apart := d.h.cfg.MinWakeInterval
	switch {
	case !a.due.IsZero():
		return
	case now.Sub(a.woken) >= apart:
		d.wake(a, now)
		return
	}
	a.due = a.woken.Add(apart)
	d.h.metrics.coalesced.Inc()
	n, _ := slices.BinarySearchFunc(d.pending, a.due, func(p *audience, due time.Time) int { return p.due.Compare(due) })
	d.pending = slices.Insert(d.pending, n, a)
	if n == 0 {
		d.due.Reset(a.due.Sub(now))
	}
}

// wakeDue wakes the audiences whose time has come.
func (d *dispatcher) wakeDue(now time.Time) {
	n := 0
	for ; n < len(d.pending) && !d.pending[n].due.After(now); n++ {
		a := d.pending[n]
		a.due = time.Time{}
		d.wake(a, now)
	}
	d.pending = slices.Delete(d.pending, 0, n)
	if len(d.pending) > 0 {
		d.due.Reset(d.pending[0].due.Sub(now))
	}
}

// wake wakes those of an audience that have not seen its last change.
func (d *dispatcher) wake(a *audience, now time.Time) {
	d.h.mu.RLock()
	last := a.last
	d.h.mu.RUnlock()
	d.batch = d.batch[:0]
	d.h.seats.Lock()
	for s := range a.streams {
		if s.cursor.Load() < last && s.asleep.Load() {
			d.batch = append(d.batch, s)
		}
	}
	d.h.seats.Unlock()
	if len(d.batch) > 0 {
		a.woken = now
	}
	d.rouse(d.batch)
}

func (d *dispatcher) rouse(streams []*Stream) {
	for _, s := range streams {
		s.rouse()
	}
	clear(streams) // it may be scratch, and must not keep streams that were closed
}

// refresh tells the streams how old the state is, if that is worth telling.
func (d *dispatcher) refresh(now time.Time) {
	h := d.h
	age, ready := h.cluster.Freshness()
	h.unshare()
	tell := false
	h.mu.Lock()
	switch {
	case !ready: // then there are no streams yet
	case age > h.cfg.StaleAfter:
		tell = h.stale.age == 0 || now.Sub(d.staleTold) >= h.cfg.StaleEvery
	default:
		tell, age = h.stale.age > 0, 0
	}
	if tell {
		h.stale = staleness{age: age, told: h.stale.told + 1}
		d.staleTold = now
	}
	h.mu.Unlock()
	if tell {
		d.rouse(h.all())
	}
}

func (d *dispatcher) startGoodbyes(now time.Time) {
	h := d.h
	h.mu.Lock()
	h.closing = true
	h.mu.Unlock()
	d.leaving = h.all()
	rand.Shuffle(len(d.leaving), func(a, b int) { d.leaving[a], d.leaving[b] = d.leaving[b], d.leaving[a] })
	d.byeSince = now
	d.byeOver = min(h.cfg.GoodbyeSpread, time.Duration(len(d.leaving))*byeApart)
	d.bye = time.NewTicker(byeTime)
	if len(d.leaving) > 0 {
		h.log.Info("say goodbye to watchers", "streams", len(d.leaving), "duration", d.byeOver)
	}
}

// sayGoodbyes says those that are due, and reports whether they were the last.
func (d *dispatcher) sayGoodbyes(now time.Time) bool {
	upTo := len(d.leaving)
	if gone := now.Sub(d.byeSince); gone < d.byeOver {
		upTo = int(float64(upTo) * float64(gone) / float64(d.byeOver))
	}
	due := d.leaving[d.told:max(d.told, upTo)]
	d.told += len(due)
	d.h.mu.Lock()
	for _, s := range due {
		s.leaving = true
	}
	d.h.mu.Unlock()
	d.rouse(due)
	return d.told == len(d.leaving)
}
