package chaos

import (
	"cmp"
	"maps"
	"slices"

	"github.com/muster-registry/muster"
)

// extent is a range of indexes, both ends included.
type extent struct{ from, to uint64 }

// checkRestores asks that what a restore brings back is the state of the whole
// registry at one index: one at which the backup may have been made.
func (c *checks) checkRestores() {
	by := map[string][]shown{}
	for _, s := range c.shown {
		by[s.service] = append(by[s.service], s)
	}
	for n, e := range c.log.restores {
		base := uint64(0)
		if n > 0 {
			base = c.log.restores[n-1].Index
		}
		window := c.savedBetween(e)
		fits := []extent{window}
		for _, service := range slices.Sorted(maps.Keys(by)) {
			i := slices.IndexFunc(by[service], func(s shown) bool { return s.index == e.Index })
			if i < 0 {
				continue // nobody looked before it changed again
			}
			c.Restored++
			was := c.matching(service, by[service], by[service][i].cells, base, e.Index)
			if fits = common(fits, was); len(fits) == 0 {
				c.violate("restore", []int64{by[service][i].record}, "what the restore at %d brought back is the state of no index from %d to %d: %s does not go with what else it brought back", e.Index, window.from, window.to, service)
				break
			}
		}
	}
}

// savedBetween are the indexes of which the backup may be that was restored by e: it
// holds what was acknowledged before it was asked for, and nothing that was asked for
// after it was there.
func (c *checks) savedBetween(e Event) extent {
	window := extent{0, e.Index - 1}
	i := slices.IndexFunc(c.faults, func(f FaultSpan) bool {
		return f.Restore != nil && (f.Restore.Index == e.Index || f.Restore.RestoreCall.UnixMilli() <= e.Time &&
			(f.Restore.RestoreReturn.IsZero() || f.Restore.RestoreReturn.UnixMilli() >= e.Time))
	})
	if i < 0 {
		return window
	}
	call, back := c.h.Since(c.faults[i].Restore.SaveCall), c.h.Since(c.faults[i].Restore.SaveReturn)
	for _, r := range c.writes {
		if r.Outcome != OK || r.Index == 0 || r.Index >= e.Index {
			continue
		}
		if r.Return < call {
			window.from = max(window.from, r.Index)
		}
		if r.Call > back {
			window.to = min(window.to, r.Index-1)
		}
	}
	return window
}

// matching are the indexes at which a service was as a restore brought it back, since
// the restore before it: what that one brought back has to have been seen as well.
func (c *checks) matching(service string, views []shown, cells []Cell, base, end uint64) (out []extent) {
	want := valuesOf(cells)
	now := map[string]string{}
	if base > 0 {
		i := slices.IndexFunc(views, func(s shown) bool { return s.index == base })
		if i < 0 {
			return []extent{{0, end - 1}}
		}
		now = valuesOf(views[i].cells)
	}
	fits := func() bool {
		return maps.EqualFunc(want, now, func(a, b string) bool { return b == "" || a == b })
	}
	from, was := base, fits()
	for _, index := range c.log.services[service] {
		if index <= base || index >= end {
			continue
		}
		for _, e := range c.log.entries[index] {
			switch {
			case e.Service != service || e.ID == "":
			case e.Type == string(muster.EventDeregistered), e.Type == string(muster.EventExpired):
				delete(now, e.ID)
			default:
				now[e.ID] = c.log.looks[e].value
			}
		}
		if is := fits(); is != was {
			if was {
				out = append(out, extent{from, index - 1})
			}
			from, was = index, is
		}
	}
	if was {
		out = append(out, extent{from, end - 1})
	}
	return out
}

func valuesOf(cells []Cell) map[string]string {
	values := map[string]string{}
	for _, cell := range cells {
		values[cell.ID] = cell.Value
	}
	return values
}

// common are the indexes in both.
func common(a, b []extent) (out []extent) {
	for _, x := range a {
		for _, y := range b {
			if z := (extent{max(x.from, y.from), min(x.to, y.to)}); z.from <= z.to {
				out = append(out, z)
			}
		}
	}
	slices.SortFunc(out, func(x, y extent) int { return cmp.Compare(x.from, y.from) })
	return out
}
