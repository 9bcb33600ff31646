package fsm_test

import (
	"bytes"
	"context"
	"encoding"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
)

// TestOneReplacementABatch: a batch replaces a view once, and tells of each of
// its entries.
func TestOneReplacementABatch(t *testing.T) {
	rec := &recorder{}
	m := newMachine(t, rec)
	m.must(fsm.Register{Instance: web("a")})
	_, changed := m.fsm.Watch(webKey)
	logs := []*raft.Log{
		m.entry(fsm.Register{Instance: web("b")}, fsm.Register{Instance: web("c")}),
		{Index: m.next, Type: raft.LogConfiguration},
	}
	m.next++
	logs = append(logs, m.entry(fsm.Register{Instance: instance("db", "x")}), m.entry(fsm.Deregister{Key: key("web", "a")}))
	responses := m.fsm.ApplyBatch(logs)

	for n, want := range []int{2, 0, 1, 1} {
		results, _ := responses[n].([]encoding.BinaryAppender)
		if len(results) != want {
			t.Errorf("response %d: got %d results, want %d", n, len(results), want)
		}
	}
	if !isClosed(changed) {
		t.Error("the channel of the view before is still open")
	}
	if v := m.fsm.View(webKey); len(v.Instances) != 2 || v.Index != 5 {
		t.Errorf("got %d instances at %d, want 2 at 5", len(v.Instances), v.Index)
	}
	c := rec.last(t)
	if len(rec.got) != 2 || c.Index != 5 || c.Reset || len(c.Entries) != 3 || len(c.Entries[0].Events) != 2 || c.Entries[1].Index != 4 {
		t.Errorf("told %d times, the last time %+v", len(rec.got), c)
	}
	if e := c.Entries[0].Events[1]; e.Instance != m.fsm.View(webKey).Find("c") {
		t.Errorf("the event carries %p, the view %p", e.Instance, m.fsm.View(webKey).Find("c"))
	}
	if len(c.Leases) != 4 || !c.Leases[0].Heard || c.Leases[0].ID != muster.MakeLeaseID(2, 0) || !c.Leases[3].Gone {
		t.Errorf("leases: %+v", c.Leases)
	}
	if e := m.fsm.Events(muster.EventQuery{}).Events; len(e) != 5 || e[0].Instance != nil {
		t.Errorf("journal: %+v", e)
	}
}

// TestConfigurationCounts: entries that are no commands are progress too.
func TestConfigurationCounts(t *testing.T) {
	m := newMachine(t)
	if got := m.fsm.ApplyBatch([]*raft.Log{{Index: 7, Type: raft.LogConfiguration}})[0]; got != nil {
		t.Errorf("response %v, want nil", got)
	}
	if m.fsm.Applied() != 7 || m.fsm.Index() != 7 {
		t.Errorf("applied %d, index %d, want 7", m.fsm.Applied(), m.fsm.Index())
	}
}

// TestUnknownKinds: what may be ignored is; what may not stops the node before
// it changes anything, and for good.
func TestUnknownKinds(t *testing.T) {
	newer := func(kind byte) []byte { // an entry of one registration and one operation of that kind
		m := newMachine(t)
		l := m.entry(fsm.Register{Instance: web("z")})
		return append(l.Data, 2<<3|2, 2, kind, 0)
	}
	for _, test := range []struct {
		name string
		data []byte
		ok   bool
		says string
	}{
		{"operation that may be ignored", newer(0x80 | 99), true, ""},
		{"operation", newer(99), false, "upgrade this node"},
		{"operation of kind 0", newer(0), false, "upgrade this node"},
		{"entry that may be ignored", []byte{0x82, 1}, true, ""},
		{"entry", []byte{2, 1}, false, "upgrade this node"},
		{"nothing", nil, false, "empty"},
		{"cut short", newer(1)[:9], false, "unexpected EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var fatal []error
			f, err := fsm.New(fsm.Config{Fatal: func(err error) { fatal = append(fatal, err) }})
			if err != nil {
				t.Fatal(err)
			}
			responses := f.ApplyBatch([]*raft.Log{{Index: 1, Type: raft.LogConfiguration}, {Index: 2, Data: test.data}, {Index: 3, Type: raft.LogConfiguration}})
			if test.ok {
				if len(fatal) > 0 || f.Applied() != 3 {
					t.Fatalf("stopped by %v at %d", fatal, f.Applied())
				}
				return
			}
			if len(fatal) != 1 || !strings.Contains(fatal[0].Error(), test.says) || !strings.Contains(fatal[0].Error(), "index 2") {
				t.Fatalf("stopped by %v, want %q at index 2", fatal, test.says)
			}
			again := f.Apply(newMachine(t).entry(fsm.Register{Instance: web("a")}))
			for _, r := range []any{responses[1], responses[2], again} {
				if _, failed := r.(error); !failed {
					t.Errorf("response %v, want an error", r)
				}
			}
			if f.Applied() != 1 || f.View(webKey) != nil || len(fatal) != 1 {
				t.Errorf("went on: applied %d, stopped %d times", f.Applied(), len(fatal))
			}
			if _, err := f.Snapshot(); err == nil {
				t.Error("a snapshot of a state that lacks entries")
			}
			if err := f.Restore(io.NopCloser(bytes.NewReader(snapshotOf(t, newMachine(t).fsm)))); err == nil {
				t.Error("went on with a snapshot")
			}
		})
	}
}

// TestFatalPanicsWithoutHandler: nobody there to stop the node.
func TestFatalPanicsWithoutHandler(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	newMachine(t).fsm.Apply(&raft.Log{Index: 1, Data: []byte{99}})
}

// TestPackRefusesWhatItCannotRead: the entry goes on, its caller is told.
func TestPackRefusesWhatItCannotRead(t *testing.T) {
	m := newMachine(t)
	good := fsm.Encode(fsm.Register{Instance: web("a")})
	for name, bad := range map[string][]byte{"newer": {99}, "empty": nil, "damaged": good[:len(good)-3]} {
		l := &raft.Log{Index: m.next, Term: 1, Data: m.fsm.Pack([][]byte{good, bad, good}, m.now)}
		m.next++
		results := m.fsm.Apply(l).([]encoding.BinaryAppender)
		if r := decoded(t, results[1]); len(results) != 3 || !errors.Is(r.Err, muster.CodeInternal) {
			t.Errorf("%s: got %d results, the second %v", name, len(results), r.Err)
		}
		if r := decoded(t, results[0]); r.Err != nil {
			t.Errorf("%s: the operation beside it: %v", name, r.Err)
		}
	}
}

// TestStampNeverFalls: the log's own time goes only forward, in milliseconds.
func TestStampNeverFalls(t *testing.T) {
	m := newMachine(t)
	m.now = epoch2026.Add(1500 * time.Microsecond)
	if at := m.must(fsm.Register{Instance: web("a")}).Instance.RegisteredAt; !at.Equal(epoch2026.Add(time.Millisecond)) {
		t.Errorf("got %s", at)
	}
	m.now = epoch2026.Add(-time.Hour)
	if at := m.must(fsm.Register{Instance: web("b")}).Instance.RegisteredAt; !at.Equal(epoch2026.Add(time.Millisecond)) {
		t.Errorf("time went back to %s", at)
	}
	m.now = time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)
	m.must(fsm.Register{Instance: web("c")})
	if len(m.fsm.View(webKey).JSON()) == 0 {
		t.Error("a year that JSON cannot write")
	}
}

// TestResults: what a caller is told survives the way to it.
func TestResults(t *testing.T) {
	m := newMachine(t)
	full := sampleOps()[1].(fsm.Register)
	full.Cond = muster.Condition{}
	r := m.must(full)
	stored := m.fsm.View(webKey).Find("a")
	if !r.Created || !r.Changed || r.Index != 1 || r.Instance == nil {
		t.Fatalf("got %+v", r)
	}
	if got, want := string((&muster.View{Instances: []*muster.Instance{r.Instance}}).JSON()), string((&muster.View{Instances: []*muster.Instance{stored}}).JSON()); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if r.Instance.Place != stored.Place || !r.Instance.SameSpec(full.Instance) {
		t.Errorf("got %+v, registered %+v", r.Instance, full.Instance)
	}
	m.must(fsm.RestoreBegin{ID: "r", Total: 1})
	r = m.do(fsm.Register{Instance: web("b")})
	if !errors.Is(r.Err, muster.CodeCatchingUp) || r.Err.Hint == "" || r.Err.RetryAfter != time.Second {
		t.Errorf("got %+v", r.Err)
	}
	m.must(fsm.RestoreAbort{ID: "r"})
	lease := m.must(fsm.GrantLease{TTL: muster.TTL(5 * time.Second), Name: "host"}).Lease
	r = m.do(fsm.Register{Instance: with(web("b"), func(i *muster.Instance) { i.LeaseID = lease.ID })})
	if !errors.Is(r.Err, muster.CodeConflictingField) || len(r.Err.Fields) != 1 || r.Err.Fields[0].Pointer != "/ttl" {
		t.Errorf("got %+v", r.Err)
	}
}

// TestWait: whoever waits for an index is woken when it can be read, and not by
// another one.
func TestWait(t *testing.T) {
	m := newMachine(t)
	if err := m.fsm.WaitIndex(t.Context(), 0); err != nil {
		t.Errorf("waiting for index 0: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	given := errors.New("given up")
	cancel(given)
	if err := m.fsm.WaitApplied(ctx, 1); !errors.Is(err, given) {
		t.Errorf("got %v, want %v", err, given)
	}
	done := make(chan uint64, 3)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, target := range []uint64{3, 1, 2} {
		wg.Go(func() {
			if err := m.fsm.WaitIndex(t.Context(), target); err != nil {
				t.Error(err)
			}
			done <- target
		})
	}
	for want := uint64(1); want <= 3; want++ {
		m.must(fsm.Register{Instance: web("a")})
		if got := <-done; got != want {
			t.Errorf("at %d the call for %d returned", want, got)
		}
	}
	if err := m.fsm.WaitApplied(t.Context(), 3); err != nil {
		t.Error(err)
	}
}

// TestWatchUnknown: a service that nobody knows can be waited for, and waking
// is for its sake.
func TestWatchUnknown(t *testing.T) {
	m := newMachine(t)
	v, changed := m.fsm.Watch(webKey)
	if v != nil || isClosed(changed) {
		t.Fatalf("got %v, closed %t", v, isClosed(changed))
	}
	m.must(fsm.Register{Instance: web("a")})
	if !isClosed(changed) {
		t.Error("the service appeared and nobody was woken")
	}
	v, changed = m.fsm.Watch(webKey)
	m.must(fsm.Register{Instance: instance("db", "x")})
	m.must(fsm.Register{Instance: web("a")})
	if isClosed(changed) || m.fsm.View(webKey) != v {
		t.Error("woken by another service, or by an identical registration")
	}
	reset := snapshotOf(t, newMachine(t).fsm)
	_, unknown := m.fsm.Watch(muster.ServiceKey{Namespace: "default", Service: "api"})
	if err := m.fsm.Restore(io.NopCloser(bytes.NewReader(withIndex(t, reset)))); err != nil {
		t.Fatal(err)
	}
	if !isClosed(changed) || !isClosed(unknown) {
		t.Error("the state was replaced and nobody was woken")
	}
	if v, _ := m.fsm.Watch(webKey); v != nil {
		t.Errorf("got %v after the state was replaced by an empty one", v)
	}
}

// withIndex returns a snapshot of an empty registry; b is one before any entry,
// which is refused.
func withIndex(t *testing.T, b []byte) []byte {
	f, err := fsm.New(fsm.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Restore(io.NopCloser(bytes.NewReader(b))); err == nil {
		t.Error("a snapshot of index 0 was taken")
	}
	m := newMachine(t)
	m.must(fsm.Member{ID: "n1", Boot: 1})
	return snapshotOf(t, m.fsm)
}

// TestServices: the list, by namespace and prefix.
func TestServices(t *testing.T) {
	m := newMachine(t)
	for _, name := range []string{"web", "web-2", "db", "we"} {
		m.must(fsm.Register{Instance: instance(name, "a")})
	}
	other := web("a")
	other.Namespace = "other"
	m.must(fsm.Register{Instance: other})
	m.must(fsm.Register{Instance: instance("gone", "a")})
	m.must(fsm.Deregister{Key: key("gone", "a")})
	for _, test := range []struct{ namespace, prefix, want string }{
		{"", "", "db we web web-2 web"},
		{"default", "", "db we web web-2"},
		{"default", "web", "web web-2"},
		{"default", "x", ""},
		{"other", "w", "web"},
		{"nowhere", "", ""},
		{"", "web", "web web-2 web"},
	} {
		all, index, _ := m.fsm.Services(test.namespace, test.prefix)
		names := []string{}
		for _, s := range all {
			names = append(names, s.Service)
		}
		if got := strings.Join(names, " "); got != test.want || index != 7 || all == nil {
			t.Errorf("%q %q: got %q at %d, want %q at 7", test.namespace, test.prefix, got, index, test.want)
		}
	}
}

// TestEvents: the journal is asked for a service, an instance, what is new.
func TestEvents(t *testing.T) {
	m := newMachine(t)
	for range 3 {
		m.must(fsm.Register{Instance: web("a")})
		m.must(fsm.Register{Instance: web("b")})
		m.must(fsm.Register{Instance: instance("db", "a")})
		m.must(fsm.Deregister{Key: key("web", "a")})
	}
	for _, test := range []struct {
		q         muster.EventQuery
		want      int
		last      uint64
		truncated bool
	}{
		{muster.EventQuery{}, 8, 12, false},
		{muster.EventQuery{Namespace: "default", Service: "web"}, 7, 12, false},
		{muster.EventQuery{Service: "web", Instance: "b"}, 1, 2, false},
		{muster.EventQuery{Service: "web", Instance: "a", Since: 5}, 3, 12, false},
		{muster.EventQuery{Limit: 3}, 3, 12, true},
		{muster.EventQuery{Namespace: "other"}, 0, 0, false},
	} {
		e := m.fsm.Events(test.q)
		if len(e.Events) != test.want || e.Truncated != test.truncated || e.Index != 12 {
			t.Errorf("%+v: got %d events at %d, truncated %t", test.q, len(e.Events), e.Index, e.Truncated)
			continue
		}
		if test.want > 0 && e.Events[test.want-1].Index != test.last {
			t.Errorf("%+v: the last is at %d, want %d", test.q, e.Events[test.want-1].Index, test.last)
		}
	}
}

// TestMetrics: what an operator sees.
func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	f, err := fsm.New(fsm.Config{Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t)
	m.fsm = f
	m.must(fsm.Register{Instance: web("a")})
	m.must(fsm.Register{Instance: web("a")})
	m.do(fsm.Deregister{Key: key("web", "x")})
	m.must(fsm.SetOverride{Key: key("web", "a"), Override: muster.Override{Status: muster.StatusDraining}})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "muster_fsm_") || family.GetHelp() == "" {
			t.Errorf("metric %s: help %q", family.GetName(), family.GetHelp())
		}
		for _, metric := range family.GetMetric() {
			name := strings.TrimPrefix(family.GetName(), "muster_fsm_")
			for _, label := range metric.GetLabel() {
				name += " " + label.GetValue()
			}
			got[name] = metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"instances draining": 1, "instances up": 0, "instances down": 0, "services": 1, "unroutable_services": 1, "leases own": 1, "leases shared": 0,
		"operations_total deregister unknown_instance": 1, "operations_total register ok": 1, "operations_total register unchanged": 1,
		"operations_total set_override ok": 1, "transitions_total drain": 1, "transitions_total registered": 1,
		"applied_entries_total": 4, "applied_index": 4, "journal_events": 2, "epoch": 0, "tombstones instance": 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s: got %v (there %t), want %v", name, v, ok, want)
		}
	}
	if _, err := fsm.New(fsm.Config{Registerer: reg}); err == nil {
		t.Error("registering twice gave no error")
	}
}
