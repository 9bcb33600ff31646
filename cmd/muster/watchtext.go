package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/muster-registry/muster"
)

// changePrinter prints the messages of a stream for people, a line an instance.
// It remembers what is there, so that of views that come again only the
// difference is printed.
type changePrinter struct {
	out    io.Writer
	colour bool

	there map[muster.ServiceKey]map[string]*muster.Instance
	// views are the services of the views since the last synced.
	views map[muster.ServiceKey]bool
}

func newChangePrinter(out io.Writer, colour bool) *changePrinter {
	return &changePrinter{
		out: out, colour: colour, there: map[muster.ServiceKey]map[string]*muster.Instance{}, views: map[muster.ServiceKey]bool{},
	}
}

// What becomes of an instance, and the colours of it.
const (
	isThere = "="
	came    = "+"
	changed = "~"
	went    = "-"
)

var colours = map[string]string{isThere: "\x1b[2m", came: "\x1b[32m", changed: "\x1b[33m", went: "\x1b[31m"}

func (p *changePrinter) show(m *message, _ []byte) error {
	switch m.Type {
	case "snapshot", "resync":
		var v muster.View
		if err := json.Unmarshal(m.Data, &v); err != nil {
			return err
		}
		return p.view(m.Type, &v)
	case "synced":
		return p.synced()
	case "change":
		var c struct {
			Events []*muster.Event `json:"events"`
		}
		if err := json.Unmarshal(m.Data, &c); err != nil {
			return err
		}
		for _, e := range c.Events {
			if err := p.event(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// view prints how a view differs from what is known.
func (p *changePrinter) view(kind string, v *muster.View) error {
	k := v.Key()
	p.views[k] = true
	before := p.there[k]
	now := make(map[string]*muster.Instance, len(v.Instances))
	sign := isThere
	if kind == "resync" {
		sign = came
	}
	for _, i := range v.Instances {
		now[i.ID] = i
		switch old := before[i.ID]; {
		case old == nil:
			if err := p.line(sign, i.StatusSince, subject(k, i.ID), place(i), state(i), string(i.StatusCause)); err != nil {
				return err
			}
		case old.ModifyIndex != i.ModifyIndex || old.Place != i.Place:
			if err := p.line(changed, i.StatusSince, subject(k, i.ID), place(i), state(i), string(i.StatusCause)); err != nil {
				return err
			}
		}
	}
	p.there[k] = now
	if kind == "snapshot" && len(v.Instances) == 0 && before == nil {
		return p.line(isThere, time.Now(), k.Service, "-", "no instances", string(v.EmptyReason))
	}
	return p.gone(k, before, now)
}

// gone prints what was there and is no more.
func (p *changePrinter) gone(k muster.ServiceKey, before, now map[string]*muster.Instance) error {
	for _, id := range slices.Sorted(maps.Keys(before)) {
		if now[id] == nil {
			if err := p.line(went, time.Now(), subject(k, id), place(before[id]), "gone", "-"); err != nil {
				return err
			}
		}
	}
	return nil
}

// synced ends a run of views: what was in none of them is not there.
func (p *changePrinter) synced() error {
	for _, k := range slices.SortedFunc(maps.Keys(p.there), muster.ServiceKey.Compare) {
		if !p.views[k] {
			if err := p.gone(k, p.there[k], nil); err != nil {
				return err
			}
			delete(p.there, k)
		}
	}
	clear(p.views)
	return nil
}

func (p *changePrinter) event(e *muster.Event) error {
	k := muster.ServiceKey{Namespace: e.Namespace, Service: e.Service}
	who := []string{string(e.Cause), e.Actor}
	if e.Reason != "" {
		who = append(who, fmt.Sprintf("%q", e.Reason))
	}
	if e.ID == "" { // of the service as a whole
		return p.line(changed, e.Time, k.Service, "-", string(e.Type), who...)
	}
	before := p.there[k][e.ID]
	if e.Instance == nil {
		delete(p.there[k], e.ID)
		at := "-"
		if before != nil {
			at = place(before)
		}
		return p.line(went, e.Time, subject(k, e.ID), at, string(e.Type), who...)
	}
	if p.there[k] == nil {
		p.there[k] = map[string]*muster.Instance{}
	}
	p.there[k][e.ID] = e.Instance
	sign := changed
	if e.Type == muster.EventRegistered {
		sign = came
	}
	return p.line(sign, e.Time, subject(k, e.ID), place(e.Instance), state(e.Instance), who...)
}

// line prints one line in columns that are wide enough for most.
func (p *changePrinter) line(sign string, at time.Time, what, where, state string, who ...string) error {
	text := fmt.Sprintf("%s %s  %-24s %-21s %-12s %s", sign, at.Local().Format("2006-01-02 15:04:05"), what, where, state, strings.Join(who, "  "))
	text = strings.TrimRight(text, " ")
	if p.colour {
		text = colours[sign] + text + "\x1b[0m"
	}
	_, err := fmt.Fprintln(p.out, text)
	return err
}

func subject(k muster.ServiceKey, id string) string { return k.Service + "/" + id }

func place(i *muster.Instance) string { return fmt.Sprintf("%s:%d", i.Address, i.Port) }

func state(i *muster.Instance) string {
	if i.Suspect {
		return string(i.Status) + " (suspect)"
	}
	return string(i.Status)
}
