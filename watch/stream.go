package watch

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster/fault"
)

// Stream is a cursor of one reader. All but Close is for one goroutine at a time,
// and Close for the one that is done with the others.
type Stream struct {
	hub    *Hub
	sel    selection
	topics []*topic // those of the services that are named
	group  *group   // or that of the prefix

	// asleep is set, under Hub.mu and after a look at all there is, when the reader
	// goes to wait on wake; whoever clears it either sends on wake (at most one is
	// on its way) or is the reader.
	asleep atomic.Bool
	wake   chan struct{}
	// cursor: all that the stream carries up to this index was handed out, or shown
	// by a view. It may be ahead of this node; then nothing is told until the node
	// is there. Written by the reader.
	cursor atomic.Uint64

	leaving   bool   // guarded by Hub.mu: to be told goodbye
	staleSeen uint32 // of staleness.told; the reader's, as all below
	phase     phase
	kind      Kind   // of the views that are being handed out
	joined    uint64 // changes above it are news, not history
	cut       *cut   // while its views are being handed out
	next      int    // the view of cut that is next
	timer     *time.Timer
	sent      time.Time // when the last message was handed out
	format    Format
	held      Message // by Wait for WriteTo; no Kind: none
}

type phase uint8

const (
	phaseLive  phase = iota
	phaseCut         // views have to be read
	phaseViews       // views are being handed out
	phaseOver        // goodbye was said
)

// state is what a step came to.
type state uint8

const (
	stateMessage state = iota
	stateNothing
	stateAgain // there may be more further on
	stateCut   // views have to be read first
	stateOver
)

func newStream(h *Hub, sel selection, spec Spec) *Stream {
	s := &Stream{
		hub: h, sel: sel, format: spec.Format, wake: make(chan struct{}, 1), sent: time.Now(),
		phase: phaseCut, kind: KindSnapshot,
	}
	if spec.From != nil {
		s.cursor.Store(*spec.From)
		if fault.Is(fault.CursorOffByOne) {
			s.cursor.Add(1)
		}
		s.phase = phaseLive
	}
	return s
}

// Close takes the stream out of the Hub.
func (s *Stream) Close() { s.hub.leave(s) }

// Next waits for the next message. After a goodbye the error is io.EOF; where a
// cursor that was ahead of this node turns out to be of no cluster's it is a
// *muster.Error, cursor_gone; else it is the cause of ctx's end.
func (s *Stream) Next(ctx context.Context) (Message, error) {
	woken := false
	for {
		m, st := s.step(true)
		switch st {
		case stateMessage:
			s.handOut(&m)
			return m, nil
		case stateOver:
			return Message{}, io.EOF
		case stateCut:
			woken = false
			if err := s.read(ctx); err != nil {
				return Message{}, err
			}
		case stateNothing:
			if woken {
				s.hub.metrics.spurious.Inc()
			}
			silent, err := s.sleep(ctx)
			if err != nil {
				return Message{}, err
			}
			if silent {
				return s.alive(ctx)
			}
			woken = true
			s.hub.metrics.wakes.Inc()
		}
	}
}

// Wait waits, as Next does, until there is something to write; see WriteTo.
func (s *Stream) Wait(ctx context.Context) (err error) {
	if s.held.Kind == "" {
		s.held, err = s.Next(ctx)
	}
	return err
}

// Ready returns the next message if there is one already. That there is none does
// not mean that Next will wait: it may have views to read.
func (s *Stream) Ready() (Message, bool) {
	for {
		switch m, st := s.step(false); st {
		case stateMessage:
			s.handOut(&m)
			return m, true
		case stateAgain:
		default:
			return Message{}, false
		}
	}
}

// step finds the next message. Where there is nothing, and the caller means to
// sleep, s is marked as asleep in the same look.
func (s *Stream) step(sleep bool) (Message, state) {
	h := s.hub
	h.mu.RLock()
	defer h.mu.RUnlock()
	switch {
	case s.phase == phaseOver:
		return Message{}, stateOver
	case s.leaving:
		s.phase, s.cut = phaseOver, nil
		return Message{Kind: KindGoodbye}, stateMessage
	case s.staleSeen != h.stale.told:
		s.staleSeen = h.stale.told
		return Message{Kind: KindStale, Stale: h.stale.age}, stateMessage
	}
	switch s.phase {
	case phaseCut:
		return Message{}, stateCut
	case phaseViews:
		return s.view(), stateMessage
	}
	m, st := s.look()
	if st == stateNothing {
		s.asleep.Store(sleep)
	}
	return m, st
}

// view hands out the next view, and after the last one synced.
func (s *Stream) view() Message {
	if s.next < len(s.cut.views) {
		v := s.cut.views[s.next]
		s.next++
		return Message{Kind: s.kind, View: v}
	}
	s.phase, s.joined = phaseLive, s.cut.index
	s.cursor.Store(s.cut.index)
	if s.kind == KindResync && fault.Is(fault.ReplayAfterInstall) {
		s.cursor.Store(s.hub.ring.floor)
	}
	s.cut = nil
	return Message{Kind: KindSynced, Index: s.joined}
}

// look finds the next change after the cursor. It is called with Hub.mu held for
// reading.
func (s *Stream) look() (Message, state) {
	cursor := s.cursor.Load()
	if s.overtaken(cursor) {
		s.phase, s.kind = phaseCut, KindResync
		return Message{}, stateCut
	}
	m, reached := s.find(cursor)
	if m.entry == nil {
		s.cursor.Store(max(cursor, reached))
		if reached < s.hub.index {
			return Message{}, stateAgain
		}
		return Message{}, stateNothing
	}
	s.cursor.Store(m.Index)
	return m, stateMessage
}

// handOut notes that m goes to the reader now.
func (s *Stream) handOut(m *Message) {
	s.sent = time.Now()
	if m.entry != nil && m.Index > s.joined {
		s.hub.metrics.propagation.Observe(s.sent.Sub(m.entry.applied).Seconds())
	}
}

// overtaken reports whether a change after cursor can no longer be told.
func (s *Stream) overtaken(cursor uint64) bool {
	if s.hub.replaced > cursor || s.group != nil && s.group.lost > cursor {
		return true
	}
	for _, t := range s.topics {
		if t.lost > cursor {
			return true
		}
	}
	return false
}

// find returns the first entry after cursor that holds what s carries. Where it
// finds none, it has reached that index without.
func (s *Stream) find(cursor uint64) (m Message, reached uint64) {
	if s.group != nil {
		return s.search(cursor)
	}
	var first *change
	for _, t := range s.topics {
		if c := t.after(cursor); c != nil && (first == nil || c.entry.index < first.entry.index) {
			first = c
		}
	}
	if first == nil {
		return Message{}, s.hub.index
	}
	if len(s.topics) > 1 {
		return s.change(first.entry, nil), 0
	}
	return s.change(first.entry, first), 0
}

// search is find for a prefix, a part of the ring at a time: the writer waits.
func (s *Stream) search(cursor uint64) (m Message, reached uint64) {
	left := 512 // changes
	for _, e := range s.hub.ring.entries[s.hub.ring.after(cursor):] {
		if left <= 0 {
			return Message{}, reached
		}
		for _, c := range e.changes {
			if s.sel.match(c.key) {
				return s.change(e, nil), 0
			}
		}
		left -= len(e.changes)
		reached = e.index
	}
	return Message{}, s.hub.index
}

// change makes the message of an entry, or of the only change of it that counts.
func (s *Stream) change(e *entry, only *change) Message {
	if only == nil && len(e.changes) == 1 {
		only = e.changes[0]
	}
	return Message{Kind: KindChange, Index: e.index, entry: e, only: only, stream: s}
}

// read reads the views that come next, or finds that nothing was missed.
func (s *Stream) read(ctx context.Context) error {
	cursor := s.cursor.Load()
	if s.kind == KindResync {
		if at, ok := s.hub.quiet(s, cursor); ok {
			s.cursor.Store(max(cursor, at))
			s.phase = phaseLive
			return nil
		}
	}
	var err error
	if s.group != nil {
		s.cut, err = s.hub.cutGroup(ctx, s.group)
	} else {
		s.cut, err = s.hub.cutTopics(ctx, s.topics)
	}
	if err != nil {
		return err
	}
	if s.kind == KindResync {
		s.hub.metrics.resyncs.Inc()
	}
	s.phase, s.next = phaseViews, 0
	return nil
}

// sleep waits until s is woken, or was silent for too long.
func (s *Stream) sleep(ctx context.Context) (silent bool, err error) {
	left := time.Until(s.sent.Add(s.hub.cfg.KeepAlive))
	if s.timer == nil {
		s.timer = time.NewTimer(left)
	} else {
		s.timer.Reset(left)
	}
	select {
	case <-s.wake:
		return false, nil
	case <-s.timer.C:
		silent = true
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if !s.asleep.CompareAndSwap(true, false) {
		<-s.wake // it is on its way
	}
	return silent, err
}

// alive makes a keep-alive. A cursor that was ahead of this node when nobody
// could say whether there is such an index is asked about again.
func (s *Stream) alive(ctx context.Context) (Message, error) {
	if err := s.hub.confirm(ctx, s.cursor.Load()); err != nil {
		return Message{}, err
	}
	s.sent = time.Now()
	return Message{Kind: KindKeepAlive}, nil
}

// rouse wakes the reader if it sleeps.
func (s *Stream) rouse() {
	if s.asleep.CompareAndSwap(true, false) {
		s.wake <- struct{}{} // has room: the last one was taken before asleep was set
	}
}
