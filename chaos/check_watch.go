package chaos

import (
	"fmt"
	"slices"

	"github.com/muster-registry/muster"
)

// watchCheck is what is known of one watcher so far.
type watchCheck struct {
	sel    *Select
	open   bool
	index  uint64 // all up to it was told; 0: nothing
	opened int64  // the record
	kind   string // of the views
	views  []shown
	lost   bool // it was found wrong: no more is said of it until it begins afresh
}

// checkWatch takes a record of a watcher: every change that it asked for comes once,
// whole and in order, from the index of a synced on, at which the views before it are
// the state; across nodes and breaks. After a restore all is shown again.
func (c *checks) checkWatch(r *Record) {
	if r.Kind == KindReached {
		if r.Index < r.After {
			c.violate("watch", []int64{r.ID}, "%s never came to %d: it stayed at %d", r.Client, r.After, r.Index)
		}
		return
	}
	w := c.watches[r.Client]
	if w == nil {
		w = &watchCheck{}
		c.watches[r.Client] = w
	}
	if r.Kind == KindOpen {
		c.openWatch(w, r)
		return
	}
	if w.lost || !w.open {
		return
	}
	var err error
	switch r.Message {
	case "snapshot", "resync":
		if (r.Message == "snapshot") != (w.index == 0) || w.kind != "" && w.kind != r.Message {
			err = fmt.Errorf("a %s, where all up to %d is known", r.Message, w.index)
		}
		if n := len(w.views); n > 0 && w.views[n-1].service >= r.Service || !w.sel.match(r.Service) {
			err = fmt.Errorf("a %s of %s, out of order or not asked for", r.Message, r.Service)
		}
		w.kind = r.Message
		w.views = append(w.views, shown{r.Service, r.Index, r.Cells, r.ID})
	case "synced":
		err = c.syncWatch(w, r)
	case "change":
		err = c.changeWatch(w, r)
	case "stale", "goodbye":
	default:
		err = fmt.Errorf("a message of type %q", r.Message)
	}
	if err != nil {
		w.lost = true
		c.violate("watch", []int64{w.opened, r.ID}, "%s: %v", r.Client, err)
	}
}

func (c *checks) openWatch(w *watchCheck, r *Record) {
	if r.Code == string(muster.CodeCursorGone) {
		c.violate("watch", []int64{r.ID}, "%s: the cursor %d, which a node of this cluster told, is refused as %s", r.Client, r.After, r.Code)
	}
	if r.Outcome != OK {
		w.open = false
		return
	}
	w.sel, w.open, w.opened, w.views, w.kind = r.Select, true, r.ID, nil, ""
	if r.After == 0 {
		w.index, w.lost = 0, false
	}
	// A stream that found out nothing before it broke has told nothing.
	if r.After != w.index && !w.lost {
		w.lost = true
		c.violate("watch", []int64{r.ID}, "%s goes on from %d, and had come to %d", r.Client, r.After, w.index)
	}
}

// syncWatch checks that the views are the state at an index. What they hold is held
// against the log by checkState; here, that they are all, and the newest.
func (c *checks) syncWatch(w *watchCheck, r *Record) error {
	if r.Index < w.index {
		return fmt.Errorf("synced %d after %d", r.Index, w.index)
	}
	if r.Index > c.log.end() {
		c.unsure("record %d is of %d, and the log is known up to %d", r.ID, r.Index, c.log.end())
		w.lost = true
		return nil
	}
	for _, v := range w.views {
		if v.index == 0 && len(v.cells) == 0 {
			continue // nothing was ever known of it
		}
		if last := c.log.lastOf(v.service, r.Index); v.index > r.Index || v.index < last && len(v.cells) > 0 {
			return fmt.Errorf("synced %d: %s is shown at %d, and last changed at %d", r.Index, v.service, v.index, last)
		}
		if len(v.cells) > 0 || len(c.log.services[v.service]) > 0 && c.log.services[v.service][0] <= v.index {
			c.shown = append(c.shown, v)
		}
	}
	for service := range c.log.services {
		if w.sel.match(service) && !slices.ContainsFunc(w.views, func(v shown) bool { return v.service == service }) && c.populated(service, r.Index) {
			return fmt.Errorf("synced %d: %s has instances and is not shown", r.Index, service)
		}
	}
	c.Syncs++
	if w.kind == "resync" {
		c.Resyncs++
	}
	w.index, w.views, w.kind = r.Index, nil, ""
	return nil
}

// populated reports whether a service surely has instances at an index: one was
// registered after the last restore, and has not gone.
func (c *checks) populated(service string, at uint64) bool {
	base := uint64(0)
	for _, e := range c.log.restores {
		if e.Index <= at {
			base = e.Index
		}
	}
	there := map[string]bool{}
	for _, index := range c.log.services[service] {
		if index <= base || index > at {
			continue
		}
		for _, e := range c.log.entries[index] {
			if e.Service == service && e.ID != "" {
				there[e.ID] = e.Type != string(muster.EventDeregistered) && e.Type != string(muster.EventExpired)
			}
		}
	}
	for _, is := range there {
		if is {
			return true
		}
	}
	return false
}

// changeWatch checks that r is what comes next.
func (c *checks) changeWatch(w *watchCheck, r *Record) error {
	if w.index == 0 || w.views != nil {
		return fmt.Errorf("change %d before anything is synced", r.Index)
	}
	if r.Index > c.log.end() {
		c.unsure("record %d is of %d, and the log is known up to %d", r.ID, r.Index, c.log.end())
		w.lost = true
		return nil
	}
	if c.log.restoredBetween(w.index, r.Index) {
		return fmt.Errorf("change %d after %d: a backup was restored between them, and nothing said", r.Index, w.index)
	}
	next, events := c.log.following(w.index, w.sel)
	if next != r.Index {
		return fmt.Errorf("change %d after %d: %d was to come", r.Index, w.index, next)
	}
	told := make([]Event, len(r.Events))
	for n, e := range r.Events {
		told[n] = e.bare()
	}
	if !slices.Equal(told, events) {
		return fmt.Errorf("change %d: told %+v, the log has %+v", r.Index, told, events)
	}
	c.Changes++
	w.index = r.Index
	return nil
}
