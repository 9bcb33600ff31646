package fsm_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
)

// TestReadersBesideTheWriter runs everything that may run beside the writer. Each
// watcher follows its service by waking, and has to arrive at its last view.
func TestReadersBesideTheWriter(t *testing.T) {
	m := newMachine(t)
	m.next = 2
	const services, rounds = 4, 150
	name := func(n int) string { return fmt.Sprintf("s%d", n) }
	ctx, stop := context.WithCancel(t.Context())
	var watchers, readers sync.WaitGroup
	for n := range services {
		k := muster.ServiceKey{Namespace: "default", Service: name(n)}
		watchers.Go(func() { follow(t, m.fsm, k) })
	}
	for _, read := range []func(){
		func() { m.fsm.Hash() },
		func() { readAll(t, m.fsm) },
		func() {
			_ = m.fsm.WaitIndex(ctx, m.fsm.Index()+1) // ends with the test
		},
		func() {
			m.fsm.MemberBoot("n1")
			m.fsm.MemberRemoved("n1")
			m.fsm.ClusterID()
			m.fsm.LeaseOf(key(name(1), "a"))
			m.fsm.Pack([][]byte{fsm.Encode(fsm.Register{Instance: web("a")})}, epoch2026)
		},
	} {
		readers.Go(func() {
			for ctx.Err() == nil {
				read()
			}
		})
	}
	for r := range rounds {
		var ops []fsm.Op
		for n := range services {
			ops = append(ops,
				fsm.Register{Instance: instance(name(n), fmt.Sprintf("i%d", r%20))},
				fsm.Deregister{Key: key(name(n), fmt.Sprintf("i%d", (r+7)%20))})
		}
		m.raw(append(ops, fsm.Epoch{ClusterID: "c"}, fsm.Member{ID: "n1", Boot: uint64(r)})...)
		switch r % 50 {
		case 20:
			snap, err := m.fsm.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			readers.Go(func() {
				if err := snap.Persist(&sink{}); err != nil {
					t.Error(err)
				}
				snap.Release()
			})
		case 30:
			if err := m.fsm.Restore(io.NopCloser(bytes.NewReader(snapshotOf(t, m.fsm)))); err != nil {
				t.Fatal(err)
			}
		case 40:
			if r := m.restore(snapshotOf(t, m.fsm)); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}
	for n := range services {
		m.raw(fsm.Register{Instance: instance(name(n), "last")})
	}
	watchers.Wait()
	stop()
	readers.Wait()
}

// follow watches a service until its instance "last" appears.
func follow(t *testing.T, f *fsm.FSM, k muster.ServiceKey) {
	index := uint64(0)
	for {
		v, changed := f.Watch(k)
		if v != nil {
			if v.Index < index {
				t.Errorf("%s went from %d to %d", k, index, v.Index)
			}
			if index = v.Index; v.Index > f.Index() && v.Find("last") != nil {
				if err := f.WaitIndex(t.Context(), v.Index); err != nil {
					t.Error(err)
				}
			}
			if v.Find("last") != nil {
				return
			}
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Errorf("%s: nobody woke the watcher", k)
			return
		}
	}
}
