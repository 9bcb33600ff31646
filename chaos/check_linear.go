package chaos

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"

	"github.com/muster-registry/muster"
)

// Linearizability is checked by porcupine, service by service: registrations and
// deregistrations of instances that nothing else changes, and linearizable reads. A
// restore ends a history, and begins another of which it is not known how it begins.

// linCell is an instance in the model.
type linCell struct {
	what  uint8
	value string
	mod   uint64
}

// What a cell may be.
const (
	linAbsent uint8 = iota
	linAny          // it is not known
	linPresent
)

// linState is a service in the model: comparable, so that porcupine can tell states
// apart by ==.
type linState struct {
	cells [4]linCell
	view  uint64 // its index; linUnseen: not known; 0: there is no such service
	last  uint64 // the highest index of a write
}

const linUnseen = math.MaxUint64

// linOp is an operation, with its answer: porcupine's input. A write whose outcome is
// unknown is in the history where the log has it, with the answer that it would have
// had, and may have happened at any time after it began.
type linOp struct {
	r       *Record
	id      int // of a read: -1 for the whole service
	index   uint64
	changed bool
	open    bool
}

func linIndex(id string) int { return slices.Index(registerIDs, id) }

// checkLinear gives every service that only the registrars change to porcupine.
func (c *checks) checkLinear() {
	histories := map[string][]linOp{}
	put := func(o linOp) {
		epoch, _ := muster.SplitIndex(o.index)
		key := fmt.Sprintf("%s in epoch %d", o.r.Service, epoch)
		histories[key] = append(histories[key], o)
	}
	for _, r := range c.writes {
		if !linear(r.Service) || linIndex(r.Instance) < 0 {
			continue
		}
		o := linOp{r: r, id: linIndex(r.Instance), index: r.Index, changed: r.Changed}
		events := c.log.of(r)
		if r.Kind == KindDeregister {
			o.changed = len(events) > 0
		}
		if r.Outcome == Unknown {
			if len(events) == 0 {
				continue // it did nothing
			}
			o.index, o.changed, o.open = events[0].Index, true, true
		}
		if o.index > 0 {
			put(o)
		}
	}
	for _, r := range c.reads {
		if r.Linearizable && r.Kind == KindRead && linear(r.Service) {
			o := linOp{r: r, id: -1, index: r.Index}
			if r.Instance != "" {
				o.id = linIndex(r.Instance)
			}
			put(o)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(histories)) {
		c.linearize(key, histories[key])
	}
}

func linear(service string) bool {
	return strings.HasPrefix(service, "reg-") || strings.HasPrefix(service, "pulse-")
}

func (c *checks) linearize(key string, ops []linOp) {
	c.Linear += len(ops)
	begin := linState{}
	if epoch, _ := muster.SplitIndex(ops[0].index); epoch > 0 {
		begin.view = linUnseen
		for n := range begin.cells {
			begin.cells[n].what = linAny
		}
	}
	model := porcupine.Model{
		Init: func() any { return begin },
		Step: func(state, input, _ any) (bool, any) {
			next, ok := linStep(state.(linState), input.(linOp))
			return ok, next
		},
		DescribeOperation: func(input, _ any) string { return input.(linOp).String() },
	}
	history := make([]porcupine.Operation, len(ops))
	for n, o := range ops {
		history[n] = porcupine.Operation{ClientId: n, Input: o, Call: o.r.Call, Return: o.r.Return}
		if o.open {
			history[n].Return = math.MaxInt64
		}
	}
	switch porcupine.CheckOperationsTimeout(model, history, c.bounds.Window) {
	case porcupine.Illegal:
		records, text := stuck(model, history, ops)
		c.violate("linear", records, "%s: no order explains its %d operations; %s", key, len(ops), text)
	case porcupine.Unknown:
		c.unsure("%s: porcupine has not made up its mind about %d operations in %v", key, len(ops), c.bounds.Window)
	}
}

// stuck says how far an order comes that takes the operations one by one as their
// indexes have them: a hint where to look.
func stuck(model porcupine.Model, history []porcupine.Operation, ops []linOp) (records []int64, text string) {
	order := slices.Clone(ops)
	slices.SortStableFunc(order, func(a, b linOp) int {
		return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(a.r.Return, b.r.Return))
	})
	state := model.Init()
	for n, o := range order {
		ok, next := model.Step(state, o, nil)
		if !ok {
			for _, near := range order[max(0, n-3) : n+1] {
				records = append(records, near.r.ID)
			}
			return records, fmt.Sprintf("in the order of indexes the first that does not fit is %v upon %+v", o, state)
		}
		state = next
	}
	return []int64{ops[0].r.ID, ops[len(ops)-1].r.ID}, "in the order of their indexes they would, but that is not the order of time"
}

func (o linOp) String() string {
	return fmt.Sprintf("%s %s of %s/%s at %d: %s %d %s", o.r.Kind, cmp.Or(o.r.Value, o.r.Op), o.r.Service, o.r.Instance, o.index, o.r.Outcome, o.r.Status, o.r.Code)
}

// linStep is the registry in short.
func linStep(s linState, o linOp) (linState, bool) {
	if o.r.Kind == KindRead {
		return linRead(s, o)
	}
	if o.index < s.last {
		return s, false
	}
	s.last = o.index
	cell := &s.cells[o.id]
	holds := linHolds(*cell, o.r)
	if o.r.Outcome == Fail {
		return s, linRefused(*cell, o.r, holds)
	}
	if !holds && cell.what != linAny {
		return s, false
	}
	if o.r.Kind == KindDeregister {
		if o.changed != (cell.what == linPresent) && cell.what != linAny {
			return s, false
		}
		*cell = linCell{what: linAbsent}
	} else {
		if !o.open && o.r.Created != (cell.what == linAbsent) && cell.what != linAny {
			return s, false
		}
		if same := cell.what == linPresent && cell.value == o.r.Value; cell.what != linAny && same == o.changed {
			return s, false
		}
		if o.changed {
			*cell = linCell{linPresent, o.r.Value, o.index}
		} else if len(o.r.Cells) == 1 {
			told := o.r.Cells[0].Modify
			if cell.what == linPresent && cell.mod != told {
				return s, false
			}
			*cell = linCell{linPresent, o.r.Value, told}
		}
	}
	if o.changed {
		s.view = o.index
	}
	return s, true
}

// linHolds reports whether the conditions of a write hold.
func linHolds(cell linCell, r *Record) bool {
	if r.Match > 0 {
		return cell.what == linPresent && cell.mod == r.Match
	}
	return !r.Absent || cell.what == linAbsent
}

// linRefused reports whether a write had to be refused as it was.
func linRefused(cell linCell, r *Record, holds bool) bool {
	switch muster.Code(r.Code) {
	case muster.CodePreconditionFailed:
		return !holds || cell.what == linAny
	case muster.CodeUnknownInstance:
		return r.Kind == KindDeregister && cell.what != linPresent
	case muster.CodeNoLeader, muster.CodeOverloaded, muster.CodeCatchingUp, muster.CodeShuttingDown, muster.CodeDiskFull:
		return true
	}
	return false
}

func linRead(s linState, o linOp) (linState, bool) {
	unknown := o.r.Code == string(muster.CodeUnknownService)
	if unknown {
		if s.view != 0 && s.view != linUnseen {
			return s, false
		}
		s.view = 0
	} else {
		if s.view != o.index && s.view != linUnseen {
			return s, false
		}
		s.view = o.index
	}
	for n, id := range registerIDs {
		if o.id >= 0 && o.id != n {
			continue
		}
		got := linCell{}
		if i := slices.IndexFunc(o.r.Cells, func(c Cell) bool { return c.ID == id }); i >= 0 {
			got = linCell{linPresent, o.r.Cells[i].Value, o.r.Cells[i].Modify}
		}
		if s.cells[n].what != linAny && s.cells[n] != got {
			return s, false
		}
		s.cells[n] = got
	}
	return s, true
}
