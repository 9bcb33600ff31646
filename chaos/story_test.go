package chaos_test

import (
	"cmp"
	"hash/fnv"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/chaos"
)

// story is a small history made by hand, of a registry that does as it should: every
// line is one attempt, and what the registry made of it is written into the log. Times
// are milliseconds.
type story struct {
	now     int64
	raft    uint64
	epoch   uint64
	state   map[string]map[string]chaos.Cell // by service and id
	index   map[string]uint64                // of the services
	log     []chaos.Event
	records []*chaos.Record
	faults  []chaos.FaultSpan
	start   int64 // Unix ms of 0
	paged   uint64
	told    map[string]uint64 // by watcher: up to where
}

func newStory() *story {
	return &story{state: map[string]map[string]chaos.Cell{}, index: map[string]uint64{}, told: map[string]uint64{}, start: time.Now().UnixMilli()}
}

func hash(text ...string) uint64 {
	f := fnv.New64a()
	for _, t := range text {
		f.Write([]byte(t + "\x00"))
	}
	return f.Sum64()
}

// add notes an attempt that began now and took 4 ms.
func (s *story) add(r chaos.Record) *chaos.Record {
	r.Call, r.Return = s.now*1e6, (s.now+4)*1e6
	r.Wall = (s.start + s.now) * 1e6
	r.Client = cmp.Or(r.Client, "c")
	if r.Outcome == "" {
		r.Outcome = chaos.OK
	}
	if r.Status == 0 && r.Outcome == chaos.OK {
		r.Status = 200
	}
	s.records = append(s.records, &r)
	s.now += 10
	return &r
}

// entry is the index of a new log entry.
func (s *story) entry() uint64 {
	s.raft++
	return muster.MakeIndex(s.epoch, s.raft)
}

func (s *story) event(e chaos.Event) {
	e.Time = s.start + s.now + 1
	s.log = append(s.log, e)
	if e.Service != "" {
		s.index[e.Service] = e.Index
	}
}

// apply registers; it reports whether that changed something, and was a creation.
func (s *story) apply(index uint64, service, id, value, op string) (cell chaos.Cell, changed, created bool) {
	old, there := s.state[service][id]
	if there && old.Value == value {
		return old, false, false
	}
	cell = chaos.Cell{ID: id, Value: value, Modify: index}
	cell.Hash = hash(service, id, value, time.UnixMilli(int64(index)).String())
	if s.state[service] == nil {
		s.state[service] = map[string]chaos.Cell{}
	}
	s.state[service][id] = cell
	e := chaos.Event{Index: index, Type: "updated", Service: service, ID: id, Cause: "updated", Reason: op, Status: "up", Hash: cell.Hash, Value: value}
	if !there {
		e.Type, e.Cause = "registered", "registered"
	}
	s.event(e)
	return cell, true, !there
}

func (s *story) put(service, id, value string, ttl int64) *chaos.Record {
	index, op := s.entry(), "op"+time.UnixMilli(int64(s.raft)).Format("05.000")
	cell, changed, created := s.apply(index, service, id, value, op)
	return s.add(chaos.Record{
		Kind: chaos.KindRegister, Service: service, Instance: id, Value: value, Op: op, TTL: ttl,
		Index: index, Changed: changed, Created: created, Cells: []chaos.Cell{cell},
	})
}

// lost is a registration whose answer never came; applied says what became of it.
func (s *story) lost(service, id, value string, applied bool) *chaos.Record {
	if applied {
		s.apply(s.entry(), service, id, value, "lost-"+value)
	}
	return s.add(chaos.Record{
		Kind: chaos.KindRegister, Service: service, Instance: id, Value: value, Op: "lost-" + value, Outcome: chaos.Unknown, Error: "no answer in time",
	})
}

func (s *story) remove(service, id, kind, cause, op string) uint64 {
	index := s.entry()
	delete(s.state[service], id)
	s.event(chaos.Event{Index: index, Type: kind, Service: service, ID: id, Cause: cause, Reason: op})
	return index
}

func (s *story) del(service, id string) *chaos.Record {
	op := "del" + id + service
	index := s.remove(service, id, "deregistered", "deregistered", op)
	return s.add(chaos.Record{Kind: chaos.KindDeregister, Service: service, Instance: id, Op: op, Index: index, Status: 204})
}

func (s *story) expire(service, id string) {
	s.remove(service, id, "expired", "lease_expired", "")
	s.now += 10
}

func (s *story) beat(service, id string) *chaos.Record {
	key := service + "/" + id
	r := chaos.Record{Kind: chaos.KindBeat, Beat: []string{key}}
	if _, there := s.state[service][id]; !there {
		r.Status, r.Gone = 404, []string{key}
	}
	return s.add(r)
}

// idle lets time pass, in which nothing happens but that somebody else is kept alive.
func (s *story) idle(ms int64) {
	for end := s.now + ms; s.now < end; s.now += 90 {
		s.beat("own-0", "busy")
	}
}

// cells is a service as it is now, by id.
func (s *story) cells(service string) (cells []chaos.Cell) {
	for _, id := range slices.Sorted(maps.Keys(s.state[service])) {
		cells = append(cells, s.state[service][id])
	}
	return cells
}

func (s *story) read(r chaos.Record) *chaos.Record {
	r.Kind = cmp.Or(r.Kind, chaos.KindRead)
	r.Index, r.Cells = s.index[r.Service], s.cells(r.Service)
	if r.Index == 0 && r.Service != "" {
		r.Index, r.Status, r.Code = 1, 404, "unknown_service"
	}
	return s.add(r)
}

func (s *story) refused(r chaos.Record, status int, code string) *chaos.Record {
	r.Outcome, r.Status, r.Code, r.Index = chaos.Fail, status, code, s.entry()
	r.Op = cmp.Or(r.Op, "refused-"+code)
	return s.add(r)
}

// restore replaces everything by what saved holds.
func (s *story) restore(saved map[string]map[string]chaos.Cell) {
	s.epoch++
	index := s.entry()
	s.state, s.index = map[string]map[string]chaos.Cell{}, map[string]uint64{}
	for service, cells := range saved {
		s.state[service], s.index[service] = map[string]chaos.Cell{}, index
		for id, cell := range cells {
			cell.Modify, cell.Hash = index, hash("restored", service, id, cell.Value)
			s.state[service][id] = cell
		}
	}
	s.event(chaos.Event{Index: index, Type: "updated", Cause: "restored"})
	s.now += 10
}

func (s *story) save() map[string]map[string]chaos.Cell {
	saved := map[string]map[string]chaos.Cell{}
	for service, cells := range s.state {
		saved[service] = maps.Clone(cells)
	}
	return saved
}

// open opens a stream of everything on a node: afresh, or from where it was; and tells
// what is new. After a restore that is everything anew.
func (s *story) open(client string, node int, afresh bool) {
	from := s.told[client]
	if afresh {
		from = 0
	}
	s.add(chaos.Record{Kind: chaos.KindOpen, Client: client, Node: node, After: from, Select: &chaos.Select{}})
	if was, _ := muster.SplitIndex(from); from == 0 || was != s.epoch {
		kind := "resync"
		if from == 0 {
			kind = "snapshot"
		}
		for _, service := range slices.Sorted(maps.Keys(s.index)) {
			s.add(chaos.Record{Kind: chaos.KindMessage, Client: client, Node: node, Message: kind, Service: service, Index: s.index[service], Cells: s.cells(service)})
		}
		at := muster.MakeIndex(s.epoch, s.raft)
		s.add(chaos.Record{Kind: chaos.KindMessage, Client: client, Node: node, Message: "synced", Index: at})
		s.told[client] = at
		return
	}
	s.tell(client, node)
}

// tell has an open stream tell what is new.
func (s *story) tell(client string, node int) {
	for _, e := range slices.Clone(s.log) {
		if e.Index > s.told[client] {
			s.add(chaos.Record{Kind: chaos.KindMessage, Client: client, Node: node, Message: "change", Index: e.Index, Events: []chaos.Event{e}})
			s.told[client] = e.Index
		}
	}
}

// page reads what is new in the journal.
func (s *story) page(node int) *chaos.Record {
	r := chaos.Record{Kind: chaos.KindEvents, Node: node, After: s.paged, Index: muster.MakeIndex(s.epoch, s.raft)}
	for _, e := range s.log {
		if e.Index > s.paged {
			e.Hash, e.Value = 0, ""
			r.Events = append(r.Events, e)
		}
	}
	s.paged = r.Index
	return s.add(r)
}

// final ends a story as a run ends.
func (s *story) final() {
	s.page(0)
	for node := range 3 {
		var list []chaos.Cell
		for _, service := range slices.Sorted(maps.Keys(s.index)) {
			list = append(list, chaos.Cell{ID: service, Modify: s.index[service]})
		}
		r := s.read(chaos.Record{Kind: chaos.KindFinal, Node: node, MinIndex: s.paged})
		r.Cells = list
		for _, cell := range list {
			s.read(chaos.Record{Kind: chaos.KindFinal, Node: node, Service: cell.ID, MinIndex: s.paged})
		}
	}
	for client, at := range s.told {
		s.add(chaos.Record{Kind: chaos.KindReached, Client: client, Index: at, After: s.log[len(s.log)-1].Index})
	}
}

// check has the story written down and checked.
func (s *story) check(t *testing.T) *chaos.Verdict {
	t.Helper()
	return s.checkIn(t, t.TempDir(), chaos.Bounds{Short: true})
}

func (s *story) checkIn(t *testing.T, dir string, bounds chaos.Bounds) *chaos.Verdict {
	t.Helper()
	h, err := chaos.NewHistory(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range s.records {
		h.Add(r)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	v, err := chaos.Check(h, s.faults, bounds)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
