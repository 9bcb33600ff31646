package clustertest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/muster-registry/muster"
)

// follower is a client of GET /v1/watch that changes nodes for no reason, breaks
// off in the middle, now and then starts afresh, and keeps all it is told.
type follower struct {
	name     string
	services []string // none: by prefix
	prefix   string
	urls     []string

	cursor atomic.Uint64
	seen   []told // read after run has returned
	opened int
	err    error // what must not happen
}

// told is a message, or where there is none, that another stream was opened:
// afresh, or from the cursor.
type told struct {
	message
	opened, afresh bool
}

func (f *follower) query(cursor uint64) string {
	var q []string
	for _, s := range f.services {
		q = append(q, "service="+s)
	}
	if f.prefix != "" {
		q = append(q, "prefix="+f.prefix)
	}
	if cursor > 0 {
		q = append(q, fmt.Sprintf("from=%d", cursor))
	}
	return strings.Join(q, "&")
}

func (f *follower) match(service string) bool {
	if len(f.services) > 0 {
		return slices.Contains(f.services, service)
	}
	return strings.HasPrefix(service, f.prefix)
}

// run follows until ctx ends; done says whether it has seen enough.
func (f *follower) run(ctx context.Context, done func(cursor uint64) bool) {
	for ctx.Err() == nil && f.err == nil && !done(f.cursor.Load()) {
		f.visit(ctx, done)
	}
}

// visit opens a stream on some node, for a while.
func (f *follower) visit(ctx context.Context, done func(cursor uint64) bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(50+rand.IntN(2000))*time.Millisecond)
	defer cancel()
	cursor := f.cursor.Load()
	afresh := cursor == 0 || rand.IntN(10) == 0
	if afresh {
		cursor = 0
	}
	s, err := openStream(ctx, f.urls[rand.IntN(len(f.urls))], f.query(cursor))
	if err != nil {
		// Nobody there, or not ready, or on its way out. But every cursor is of this
		// cluster, wherever it was seen.
		if muster.CodeOf(err) == muster.CodeCursorGone {
			f.err = fmt.Errorf("at %d: %w", cursor, err)
		}
		select {
		case <-ctx.Done():
		case <-time.NewTimer(10 * time.Millisecond).C:
		}
		return
	}
	defer s.close()
	f.opened++
	f.seen = append(f.seen, told{opened: true, afresh: afresh})
	if afresh {
		f.cursor.Store(0)
	}
	for most := 1 + rand.IntN(300); most > 0 && !done(f.cursor.Load()); most-- {
		m, err := s.next()
		if err != nil {
			return
		}
		f.seen = append(f.seen, told{message: m})
		if m.ID > 0 {
			f.cursor.Store(m.ID)
		}
	}
}

// verdict is what a checker counted.
type verdict struct{ synced, resynced, changes int }

// check holds all that f was told against what was committed: every change that
// f asked for, once, whole and in order, from the index of a synced on, at which
// the views before it are the state.
func (f *follower) check(r *record) (v verdict, err error) {
	c := checker{f: f, r: r}
	for n, t := range f.seen {
		if err := c.take(t); err != nil {
			return c.verdict, fmt.Errorf("message %d: %w", n, err)
		}
	}
	return c.verdict, nil
}

type checker struct {
	f *follower
	r *record
	verdict
	index uint64 // all up to it is known; 0: nothing
	kind  string // of the views
	views []string
}

func (c *checker) take(t told) error {
	switch {
	case t.opened:
		c.views, c.kind = nil, ""
		if t.afresh {
			c.index = 0
		}
		return nil
	case t.Type == "snapshot", t.Type == "resync":
		if (t.Type == "snapshot") != (c.index == 0) || c.kind != "" && c.kind != t.Type {
			return fmt.Errorf("a %s, where all up to %d is known", t.Type, c.index)
		}
		c.kind = t.Type
		c.views = append(c.views, string(t.Data))
		return nil
	case t.Type == "synced":
		return c.sync(t.ID)
	case t.Type == "change":
		return c.change(t)
	case t.Type == "stale", t.Type == "goodbye":
		return nil
	}
	return fmt.Errorf("a message of type %q", t.Type)
}

// sync checks that the views are the state at an index: all of it that f asked
// for, and nothing else.
func (c *checker) sync(index uint64) error {
	if index < c.index {
		return fmt.Errorf("synced %d after %d", index, c.index)
	}
	want := c.r.at(index)
	for k := range want {
		if k.Namespace != muster.DefaultNamespace || !c.f.match(k.Service) {
			delete(want, k)
		}
	}
	last, shown := "", 0
	for _, text := range c.views {
		var v struct {
			Service   string
			Index     uint64
			Instances []json.RawMessage
		}
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return err
		}
		if v.Service <= last || !c.f.match(v.Service) || v.Index > index {
			return fmt.Errorf("synced %d: a view of %s at %d after one of %s", index, v.Service, v.Index, last)
		}
		last = v.Service
		shown++
		for _, i := range v.Instances {
			var id struct{ ID string }
			if err := json.Unmarshal(i, &id); err != nil {
				return err
			}
			k := muster.InstanceKey{Namespace: muster.DefaultNamespace, Service: v.Service, ID: id.ID}
			if want[k] != string(i) {
				return fmt.Errorf("synced %d: shown %s, was %s", index, i, want[k])
			}
			delete(want, k)
		}
	}
	if len(want) > 0 {
		return fmt.Errorf("synced %d: not shown %v", index, want)
	}
	if len(c.f.services) > 0 && shown != len(c.f.services) {
		return fmt.Errorf("synced %d: %d views of %d services", index, shown, len(c.f.services))
	}
	c.synced++
	if c.kind == "resync" {
		c.resynced++
	}
	c.index, c.views, c.kind = index, nil, ""
	return nil
}

// change checks that t is what comes next.
func (c *checker) change(t told) error {
	if c.index == 0 || c.views != nil {
		return fmt.Errorf("change %d before anything is synced", t.ID)
	}
	was, _ := muster.SplitIndex(c.index)
	if is, _ := muster.SplitIndex(t.ID); is != was {
		return fmt.Errorf("change %d after %d: a backup was restored between them, and nothing said", t.ID, c.index)
	}
	next, data := c.r.following(c.index, c.f.match)
	if next != t.ID || data != string(t.Data) {
		return fmt.Errorf("change %d after %d: told %s, want %d %s", t.ID, c.index, t.Data, next, data)
	}
	c.changes++
	c.index = next
	return nil
}
