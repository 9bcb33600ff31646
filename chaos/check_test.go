package chaos_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster/chaos"
)

// marks are the records of a tale that the table below spoils.
type marks struct {
	first, second, same, refused, removed, applied, ignored, failed *chaos.Record
	linear, local, minimum, single, absent                          *chaos.Record
	owner, beat, last, gone, held                                   *chaos.Record
	late, page, poll                                                *chaos.Record
}

// tale is a story with everything in it once.
func tale() (*story, *marks) {
	s, m := newStory(), &marks{}
	s.raft = 8
	const reg, own = "reg-a-0", "own-0"
	s.open("w", 0, true)
	m.absent = s.read(chaos.Record{Service: reg, Linearizable: true})
	m.first = s.put(reg, "a", "v1", 0)
	m.second = s.put(reg, "a", "v2", 0)
	m.second.Match = m.first.Index
	m.same = s.put(reg, "a", "v2", 0)
	m.same.Same = true
	m.refused = s.refused(chaos.Record{Kind: chaos.KindRegister, Service: reg, Instance: "a", Value: "v3", Match: m.first.Index}, 412, "precondition_failed")
	s.refused(chaos.Record{Kind: chaos.KindDeregister, Service: reg, Instance: "b"}, 404, "unknown_instance")
	m.linear = s.read(chaos.Record{Service: reg, Linearizable: true})
	m.local = s.read(chaos.Record{Service: reg})
	m.minimum = s.read(chaos.Record{Service: reg, MinIndex: m.second.Index, Client: "d"})
	m.single = s.add(chaos.Record{Kind: chaos.KindRead, Service: reg, Instance: "a", Linearizable: true, Index: s.index[reg], Cells: s.cells(reg)})
	m.applied = s.lost(reg, "c", "v4", true)
	m.ignored = s.lost(reg, "d", "v5", false)
	m.failed = s.refused(chaos.Record{Kind: chaos.KindRegister, Service: reg, Instance: "d", Value: "v6"}, 503, "no_leader")
	s.tell("w", 0)
	m.poll = s.read(chaos.Record{Kind: chaos.KindPoll, Service: reg, After: m.first.Index})
	m.page = s.page(1)

	m.owner = s.put(own, "o1", "o1.1", 2000)
	s.put(own, "o2", "o2.1", 2000)
	s.put(own, "busy", "busy.1", 9000)
	s.idle(700)
	m.beat = s.beat(own, "o1")
	m.removed = s.del(own, "o2")
	m.gone = s.beat(own, "o2")
	s.idle(700)
	m.last = s.beat(own, "o1")
	s.open("w", 1, false)
	s.idle(1800)
	s.now = m.last.Call/1e6 + 2009
	s.expire(own, "o1") // 10 ms after its ttl
	m.late = s.beat(own, "o1")
	m.held = s.put(own, "o3", "o3.1", 2000)

	s.idle(500)
	s.put(reg, "c", "v4b", 0)
	saved := s.save()
	s.put(reg, "b", "v7", 0)
	s.idle(200)
	s.tell("w", 1)
	s.restore(saved)
	s.read(chaos.Record{Service: reg, Linearizable: true})
	s.put(reg, "b", "v8", 0)
	s.read(chaos.Record{Service: reg, Linearizable: true})
	s.open("w", 2, false)
	s.del(own, "o3")
	s.put(reg, "a", "v9", 0)
	s.tell("w", 2)
	return s, m
}

func TestGoodHistory(t *testing.T) {
	s, _ := tale()
	s.final()
	v := s.check(t)
	if !v.OK() {
		t.Fatalf("the history is right, and the checkers say:\n%v", v)
	}
	if v.Linear < 12 || v.Views < 14 || v.Restored != 2 || v.Changes < 8 || v.Syncs != 2 || v.Resyncs != 1 || v.Leases.Ended != 1 || v.Leases.Calm != 1 || v.Leases.Beats < 20 || v.Leases.Gone != 2 {
		t.Errorf("that is not all there was to check:\n%v %+v", v, v.Leases)
	}
}

// TestTwins has two clients register the same in one entry: only the first of them
// changes anything, and the answers do not tell which.
func TestTwins(t *testing.T) {
	for _, value := range []string{"v1", "v2"} {
		s, _ := tale()
		first := s.put("reg-a", "twin", "v1", 0)
		twin := *first
		twin.Op, twin.Value = "twin", value
		second := s.add(twin)
		second.Call, second.Return, second.Wall = first.Call, first.Return, first.Wall
		s.tell("w", 2)
		s.final()
		if v := s.check(t); v.OK() != (value == "v1") {
			t.Errorf("%s beside v1, answered with v1: %v", value, v)
		}
	}
}

// find is the n-th record that holds.
func find(s *story, n int, holds func(*chaos.Record) bool) *chaos.Record {
	for _, r := range s.records {
		if holds(r) {
			if n--; n < 0 {
				return r
			}
		}
	}
	panic("no such record")
}

func message(kind string) func(*chaos.Record) bool {
	return func(r *chaos.Record) bool { return r.Kind == chaos.KindMessage && r.Message == kind }
}

func drop(s *story, r *chaos.Record) {
	s.records = slices.DeleteFunc(s.records, func(o *chaos.Record) bool { return o == r })
}

// forget takes an event out of the log and out of what streams told.
func forget(s *story, index uint64) {
	s.log = slices.DeleteFunc(s.log, func(e chaos.Event) bool { return e.Index == index })
	s.records = slices.DeleteFunc(s.records, func(r *chaos.Record) bool { return r.Kind == chaos.KindMessage && r.Index == index })
	for _, r := range s.records {
		if r.Kind == chaos.KindEvents {
			r.Events = slices.DeleteFunc(r.Events, func(e chaos.Event) bool { return e.Index == index })
		}
	}
}

// move puts a record at another time.
func move(r *chaos.Record, ms int64) {
	r.Call, r.Return, r.Wall = r.Call+ms*1e6, r.Return+ms*1e6, r.Wall+ms*1e6
}

// TestBadHistories spoils the good one in one place each, before or after its end, and
// asks for the checker that has to see it.
func TestBadHistories(t *testing.T) {
	before := map[string]struct {
		want  string
		spoil func(*story, *marks)
	}{
		"a read that is older than an acknowledged write": {"linear", func(_ *story, m *marks) {
			m.linear.Index, m.linear.Cells = m.first.Index, m.first.Cells
		}},
		"the same by its index alone": {"fresh", func(_ *story, m *marks) {
			m.linear.Index, m.linear.Cells = m.first.Index, m.first.Cells
		}},
		"a read of one instance that is older": {"linear", func(_ *story, m *marks) { m.single.Cells = m.first.Cells }},
		"a read that knows the future":         {"linear", func(_ *story, m *marks) { move(m.linear, -m.linear.Call/1e6+20) }},
		"a service that is not there, yet was": {"linear", func(_ *story, m *marks) { move(m.absent, m.linear.Call/1e6-m.absent.Call/1e6) }},
		"a condition that did not hold":        {"linear", func(_ *story, m *marks) { m.second.Match = m.first.Index - 1 }},
		"a refusal though it held":             {"linear", func(_ *story, m *marks) { m.refused.Match = m.second.Index }},
		"created, though it was there":         {"acked", func(_ *story, m *marks) { m.second.Created = true }},
		"an unknown outcome that came before it was sent": {"linear", func(s *story, m *marks) {
			r := s.read(chaos.Record{Service: "reg-a-0", Linearizable: true})
			move(r, m.local.Call/1e6-r.Call/1e6+1)
		}},
		"a local read that is older than it says": {"fresh", func(_ *story, m *marks) {
			m.local.Index, m.local.Cells, m.local.Stale = m.first.Index, m.first.Cells, 5
		}},
		"a read with min_index that is older": {"fresh", func(_ *story, m *marks) {
			m.minimum.Index, m.minimum.Cells, m.minimum.Stale = m.first.Index, m.first.Cells, 10_000
		}},
		"a poll that goes back":                        {"fresh", func(_ *story, m *marks) { m.poll.After = m.poll.Index + 1 }},
		"an acknowledged write that is not in the log": {"acked", func(s *story, m *marks) { forget(s, m.second.Index) }},
		"a write at another index than was told":       {"acked", func(_ *story, m *marks) { m.removed.Index++ }},
		"a refused write that was applied":             {"acked", func(_ *story, m *marks) { m.failed.Op, m.failed.Instance = m.applied.Op, "c" }},
		"a write that was applied twice": {"acked", func(s *story, m *marks) {
			s.apply(s.entry(), "reg-a-0", "d", "again", m.ignored.Op)
			s.apply(s.entry(), "reg-a-0", "d", "and again", m.ignored.Op)
			s.tell("w", 2)
		}},
		"a write that nobody asked for": {"log", func(s *story, _ *marks) {
			s.apply(s.entry(), "reg-a-0", "d", "nobody's", "nobody's")
			s.tell("w", 2)
		}},
		"an index that is lower than one before": {"order", func(_ *story, m *marks) { m.refused.Index = m.same.Index }},
		"a view that is not what the log has":    {"state", func(_ *story, m *marks) { m.local.Cells = []chaos.Cell{{ID: "a", Hash: 7}} }},
		"a view that lacks an instance":          {"state", func(_ *story, m *marks) { m.local.Cells = nil }},
		"a view at an index of nothing":          {"state", func(_ *story, m *marks) { m.local.Index++ }},

		"a lease that ends before its ttl": {"lease", func(_ *story, m *marks) { move(m.last, 60) }},
		"the same after a registration":    {"lease", func(s *story, m *marks) { drop(s, m.beat); drop(s, m.last); move(m.owner, 1500) }},
		"a lease that lives too long": {"lease", func(s *story, m *marks) {
			drop(s, m.beat)
			drop(s, m.last)
		}},
		"an owner who is told that he is gone, and is not": {"lease", func(_ *story, m *marks) { m.last.Gone = m.last.Beat }},
		"a heartbeat that is taken of one deregistered":    {"lease", func(_ *story, m *marks) { m.gone.Gone = nil }},
		"a heartbeat that is taken of one that ran out":    {"lease", func(_ *story, m *marks) { m.late.Gone = nil }},

		"a stream that leaves something out": {"watch", func(s *story, _ *marks) { drop(s, find(s, 1, message("change"))) }},
		"a stream that says something twice": {"watch", func(s *story, _ *marks) {
			r := *find(s, 1, message("change"))
			s.records = slices.Insert(s.records, slices.Index(s.records, find(s, 2, message("change"))), &r)
		}},
		"a stream that changes the order": {"watch", func(s *story, _ *marks) {
			a, b := find(s, 1, message("change")), find(s, 2, message("change"))
			*a, *b = *b, *a
		}},
		"a stream that tells of what never was": {"watch", func(s *story, _ *marks) { find(s, 1, message("change")).Events[0].Cause = "drain" }},
		"two streams that show it differently": {"watch", func(s *story, m *marks) {
			s.open("v", 1, true)
			s.put("x", "a", "1", 0)
			s.tell("w", 2)
			s.tell("v", 1)
			last := s.records[len(s.records)-1]
			last.Events[0].Hash++
		}},
		"a stream that says nothing of a restore": {"watch", func(s *story, _ *marks) {
			s.records = slices.DeleteFunc(s.records, func(r *chaos.Record) bool { return r.Message == "resync" })
			drop(s, find(s, 1, message("synced")))
		}},
		"views that are not all":               {"watch", func(s *story, _ *marks) { drop(s, find(s, 1, message("resync"))) }},
		"a view that is older than its synced": {"watch", func(s *story, _ *marks) { find(s, 1, message("resync")).Index-- }},
		"a view that shows something else":     {"state", func(s *story, _ *marks) { find(s, 1, message("resync")).Cells = nil }},
		"a restore that brings back two times at once": {"restore", func(s *story, _ *marks) {
			r := find(s, 0, func(r *chaos.Record) bool { return r.Message == "resync" && r.Service == "own-0" })
			r.Cells = []chaos.Cell{{ID: "busy", Value: "busy.1", Hash: 1}, {ID: "o1", Value: "o1.1", Hash: 2}}
		}},
		"a backup that lacks what was acknowledged before": {"restore", func(s *story, _ *marks) {
			e := s.log[slices.IndexFunc(s.log, func(e chaos.Event) bool { return e.Cause == "restored" })]
			at := func(before int64) time.Time { return time.UnixMilli(e.Time - before) }
			s.faults = []chaos.FaultSpan{{Fault: "restore", Start: at(110), Heal: at(-10), Healed: at(-10), Restore: &chaos.RestoreSpan{
				SaveCall: at(100), SaveReturn: at(90), RestoreCall: at(20), RestoreReturn: at(-5), Index: e.Index,
			}}}
		}},
		"a cursor that is refused": {"watch", func(s *story, _ *marks) {
			s.add(chaos.Record{Kind: chaos.KindOpen, Client: "w", After: s.told["w"], Outcome: chaos.Fail, Status: 410, Code: "cursor_gone"})
		}},
		"journals of two nodes that differ": {"log", func(s *story, m *marks) {
			r := *m.page
			r.Events = slices.Clone(r.Events)
			r.Events[0].Cause = "drain"
			r.Node = 2
			s.records = append(s.records, &r)
		}},
		"an answer that no contract has": {"answer", func(_ *story, m *marks) {
			m.failed.Status, m.failed.Code, m.failed.Outcome = 500, "internal", chaos.Unknown
		}},
		"a max_stale that is not kept": {"fresh", func(_ *story, m *marks) { m.local.MaxStale, m.local.Stale = 100, 101 }},
		"one client who sees it go back": {"fresh", func(s *story, m *marks) {
			m.local.Client, m.local.MinIndex, m.local.Index = "d", m.second.Index+50, m.second.Index+1
		}},
	}
	for name, tt := range before {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			s, m := tale()
			tt.spoil(s, m)
			s.final()
			wantViolation(t, s.check(t), tt.want)
		})
	}
	after := map[string]struct {
		want  string
		spoil func(*chaos.Record)
	}{
		"nodes that differ in an instance": {"equal", func(r *chaos.Record) { r.Cells[0].Hash++ }},
		"nodes that differ in an index":    {"equal", func(r *chaos.Record) { r.Index-- }},
		"nodes of which one lacks it all":  {"equal", func(r *chaos.Record) { r.Cells = nil }},
	}
	for name, tt := range after {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			s, _ := tale()
			s.final()
			tt.spoil(find(s, 1, func(r *chaos.Record) bool { return r.Kind == chaos.KindFinal && r.Service == "reg-a-0" }))
			wantViolation(t, s.check(t), tt.want)
		})
	}
	t.Run("a_watcher_that_never_gets_there", func(t *testing.T) {
		s, _ := tale()
		s.final()
		find(s, 0, func(r *chaos.Record) bool { return r.Kind == chaos.KindReached }).Index = 9
		wantViolation(t, s.check(t), "watch")
	})
}

func wantViolation(t *testing.T, v *chaos.Verdict, checker string) {
	t.Helper()
	if !slices.ContainsFunc(v.Violations, func(x chaos.Violation) bool { return x.Checker == checker }) {
		t.Errorf("no violation of %s was found:\n%v", checker, v)
	}
}

// TestLeaseBornAgain has an instance end and be registered again in the same entry: what
// its owner sends from then on is of its second life.
func TestLeaseBornAgain(t *testing.T) {
	s := newStory()
	s.raft = 8
	s.put("own-0", "o1", "v", 2000)
	s.put("own-0", "busy", "v", 9000)
	s.idle(2010)
	s.expire("own-0", "o1")
	s.now -= 10
	s.raft--
	s.put("own-0", "o1", "v", 2000)
	s.idle(100)
	s.beat("own-0", "o1")
	s.final()
	if v := s.check(t); !v.OK() {
		t.Error(v)
	}
}

// TestLateLeases: what holds up an expiry is no violation, but only as long as it
// explains it.
func TestLateLeases(t *testing.T) {
	run := func(late int64, fault func(s *story) []chaos.FaultSpan) *chaos.Verdict {
		s := newStory()
		s.raft = 8
		s.open("w", 0, true)
		s.put("own-0", "o1", "v", 2000)
		s.put("own-0", "busy", "v", 9000)
		s.idle(2000 + late)
		s.faults = fault(s)
		s.expire("own-0", "o1")
		s.del("own-0", "busy")
		s.tell("w", 0)
		s.final()
		return s.check(t)
	}
	none := func(*story) []chaos.FaultSpan { return nil }
	span := func(from, to int64, stall bool) func(s *story) []chaos.FaultSpan {
		return func(s *story) []chaos.FaultSpan {
			at := func(ms int64) time.Time { return time.UnixMilli(s.start + ms) }
			return []chaos.FaultSpan{{Fault: "kill leader", Start: at(from), Heal: at(to), Healed: at(to), Stall: stall}}
		}
	}
	for _, tt := range []struct {
		name  string
		late  int64
		fault func(*story) []chaos.FaultSpan
		ok    bool
	}{
		{"on time", 100, none, true},
		{"a little late", 800, none, true},
		{"late in calm", 1500, none, false},
		{"late for a fault", 3000, span(500, 1500, false), true},
		{"later than a fault explains", 7500, span(500, 1500, false), false},
		{"late after a stall", 8500, span(500, 7000, true), true},
		{"a stall counts against it", 1000, span(500, 2900, true), false},
		{"a stall does not", 2300, span(500, 2900, true), true},
		{"a fault that was over before", 1500, span(-5000, -10, false), false},
		{"a fault that came too late", 2500, span(4000, 4400, false), false},
	} {
		if v := run(tt.late, tt.fault); v.OK() != tt.ok {
			t.Errorf("%s: got %v", tt.name, v)
		}
	}
}

// TestEndAndBeginning: a lease may run out in the entry in which its owner registers
// again, before that.
func TestEndAndBeginning(t *testing.T) {
	for _, again := range []bool{true, false} {
		s := newStory()
		s.raft = 8
		s.open("w", 0, true)
		s.put("own-0", "o1", "v", 2000)
		s.put("own-0", "busy", "v", 9000)
		s.idle(2000)
		s.expire("own-0", "o1")
		s.raft-- // what comes is in the same entry
		if again {
			s.now -= 10
			s.put("own-0", "o1", "v", 2000)
		} else {
			// It had come before, and had changed nothing.
			s.add(chaos.Record{Kind: chaos.KindRegister, Service: "own-0", Instance: "o1", Value: "v", Op: "again", Index: s.entry(), TTL: 2000})
			move(s.records[len(s.records)-1], -15)
		}
		s.page(0)
		v := s.check(t)
		early := slices.ContainsFunc(v.Violations, func(x chaos.Violation) bool { return x.Checker == "lease" })
		if early == again {
			t.Errorf("registered after the end %t: got %v", again, v)
		}
	}
}

// TestUnsure: what the log does not tell fails a run as well.
func TestUnsure(t *testing.T) {
	s, m := tale()
	drop(s, m.page)
	s.final()
	if v := s.check(t); len(v.Unsure) == 0 {
		t.Errorf("a page of the journal is missing, and nothing said:\n%v", v)
	}
}

// TestAvailability counts seconds by hand.
func TestAvailability(t *testing.T) {
	bounds := chaos.Bounds{Short: true}
	build := func(faults ...chaos.FaultSpan) *chaos.Verdict {
		s := newStory()
		s.raft = 8
		for second := range int64(20) {
			s.now = second * 1000
			if second >= 8 && second < 13 {
				s.refused(chaos.Record{Kind: chaos.KindRegister, Service: "x", Instance: "a", Value: "v", Op: "r"}, 503, "no_leader")
			} else {
				s.put("x", "a", time.UnixMilli(second).String(), 0)
			}
		}
		for n := range faults {
			for i, shock := range faults[n].Shocks {
				faults[n].Shocks[i] = shock.Add(time.Duration(s.start) * time.Millisecond)
			}
			faults[n].Start, faults[n].Healed = faults[n].Start.Add(time.Duration(s.start)*time.Millisecond), faults[n].Healed.Add(time.Duration(s.start)*time.Millisecond)
		}
		s.faults = faults
		s.page(0)
		return s.checkIn(t, t.TempDir(), bounds)
	}
	at := func(seconds int64) time.Time { return time.UnixMilli(seconds*1000 + 200) }
	for _, tt := range []struct {
		name              string
		faults            []chaos.FaultSpan
		counted, writable int
		line              string
	}{
		{"calm", nil, 19, 14, "########.....#######"},
		{"a leader is killed", []chaos.FaultSpan{{Start: at(8), Healed: at(12)}}, 15, 14, "########xxxx.#######"},
		{"and the next", []chaos.FaultSpan{{Start: at(8), Healed: at(14), Shocks: []time.Time{at(10)}}}, 13, 13, "########xxxxx#######"},
		{"all are stopped", []chaos.FaultSpan{{Start: at(8), Healed: at(12), Stall: true}}, 14, 14, "########xxxxx#######"},
	} {
		a := build(tt.faults...).Availability
		if a.Counted != tt.counted || a.CountedWritable != tt.writable || a.Timeline != tt.line {
			t.Errorf("%s: got %+v, want %d of %d and %s", tt.name, a, tt.writable, tt.counted, tt.line)
		}
	}
	bounds = chaos.Bounds{}
	wantViolation(t, build(), "available")
	if v := build(chaos.FaultSpan{Fault: "kill-all", Start: at(8), Healed: at(12), Stall: true}); len(v.Violations) > 0 || len(v.Invalid) == 0 {
		t.Errorf("a run of nothing but a few writes: got %v", v)
	}
}
