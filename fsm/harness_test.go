package fsm_test

import (
	"bytes"
	"encoding"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
)

// machine feeds an FSM a log of its own making.
type machine struct {
	t    testing.TB
	fsm  *fsm.FSM
	next uint64
	term uint64
	now  time.Time
	log  []*raft.Log
}

var epoch2026 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newMachine(t testing.TB, listeners ...fsm.Listener) *machine {
	t.Helper()
	f, err := fsm.New(fsm.Config{Listeners: listeners})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return &machine{t: t, fsm: f, next: 1, term: 1, now: epoch2026}
}

// entry makes the next log entry.
func (m *machine) entry(ops ...fsm.Op) *raft.Log {
	encoded := make([][]byte, len(ops))
	for n, op := range ops {
		encoded[n] = fsm.Encode(op)
	}
	l := &raft.Log{Index: m.next, Term: m.term, Type: raft.LogCommand, Data: m.fsm.Pack(encoded, m.now)}
	m.next++
	m.log = append(m.log, l)
	return l
}

// raw applies one entry of operations and returns their results as they are.
func (m *machine) raw(ops ...fsm.Op) []encoding.BinaryAppender {
	m.t.Helper()
	response := m.fsm.Apply(m.entry(ops...))
	results, ok := response.([]encoding.BinaryAppender)
	if !ok || len(results) != len(ops) {
		m.t.Fatalf("response is %T (%v), want %d results", response, response, len(ops))
	}
	return results
}

// apply applies one entry of operations and returns what became of them.
func (m *machine) apply(ops ...fsm.Op) []fsm.Result {
	m.t.Helper()
	var all []fsm.Result
	for _, r := range m.raw(ops...) {
		all = append(all, decoded(m.t, r))
	}
	return all
}

// do applies one entry of one operation.
func (m *machine) do(op fsm.Op) fsm.Result {
	m.t.Helper()
	return m.apply(op)[0]
}

// must applies one operation that is not to be rejected.
func (m *machine) must(op fsm.Op) fsm.Result {
	m.t.Helper()
	r := m.do(op)
	if r.Err != nil {
		m.t.Fatalf("%T was rejected: %v", op, r.Err)
	}
	return r
}

func decoded(t testing.TB, r encoding.BinaryAppender) fsm.Result {
	t.Helper()
	b, err := r.AppendBinary(nil)
	if err != nil {
		t.Fatalf("AppendBinary: %v", err)
	}
	res, err := fsm.DecodeResult(b)
	if err != nil {
		t.Fatalf("DecodeResult: %v", err)
	}
	return res
}

func web(id string) *muster.Instance {
	return instance("web", id)
}

// instance is a normalized instance as a client would register it.
func instance(service, id string) *muster.Instance {
	i := &muster.Instance{
		Namespace: "default", Service: service, ID: id, Address: "10.0.0.1", Port: 8080, Weight: 100,
		TTL: muster.TTL(10 * time.Second),
	}
	if err := i.Normalize(); err != nil {
		panic(err)
	}
	return i
}

func with(i *muster.Instance, change func(*muster.Instance)) *muster.Instance {
	change(i)
	if err := i.Normalize(); err != nil {
		panic(err)
	}
	return i
}

var webKey = muster.ServiceKey{Namespace: "default", Service: "web"}

func key(service, id string) muster.InstanceKey {
	return muster.InstanceKey{Namespace: "default", Service: service, ID: id}
}

func snapshotOf(t testing.TB, f *fsm.FSM) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := f.Backup().WriteTo(&b); err != nil {
		t.Fatalf("Backup: %v", err)
	}
	return b.Bytes()
}

// reload returns a new FSM that was restored from b.
func reload(t testing.TB, b []byte, listeners ...fsm.Listener) *fsm.FSM {
	t.Helper()
	f, err := fsm.New(fsm.Config{Listeners: listeners})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	if err := f.Restore(io.NopCloser(bytes.NewReader(b))); err != nil {
		t.Fatalf("Restore: %v", err)
	}
	return f
}

// recorder is a Listener that keeps what it is told.
type recorder struct{ got []fsm.Changes }

func (r *recorder) Applied(c fsm.Changes) { r.got = append(r.got, c) }

func (r *recorder) last(t testing.TB) fsm.Changes {
	t.Helper()
	if len(r.got) == 0 {
		t.Fatal("the listener was told nothing")
	}
	return r.got[len(r.got)-1]
}

func describeEvent(e *muster.Event) string {
	s := fmt.Sprintf("%d %s %s/%s %s", e.Index, e.Type, e.Service, e.ID, e.Cause)
	if e.PrevStatus != e.Status {
		s += fmt.Sprintf(" %s->%s", e.PrevStatus, e.Status)
	}
	if e.Actor != "" {
		s += " by " + e.Actor
	}
	if e.Reason != "" {
		s += fmt.Sprintf(" %q", e.Reason)
	}
	return s
}
