package muster_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/muster-registry/muster"
)

func TestIndexAndLeaseID(t *testing.T) {
	x := muster.MakeIndex(3, 42)
	if e, r := muster.SplitIndex(x); e != 3 || r != 42 {
		t.Errorf("got %d, %d", e, r)
	}
	if muster.MakeIndex(1, 1) <= muster.MakeIndex(0, 1<<39) {
		t.Error("a later epoch does not sort after an earlier one")
	}
	id := muster.MakeLeaseID(x, 1999)
	back, err := muster.ParseLeaseID(id.String())
	if err != nil || back != id || id.Index() != x || id.Place() != 1999 {
		t.Errorf("got %v, %v", back, err)
	}
	for _, s := range []string{"42", "-1", "42-", "a-b", "42-2048", "0-0", "99999999999999999999-0"} {
		if _, err := muster.ParseLeaseID(s); !errors.Is(err, muster.CodeUnknownLease) {
			t.Errorf("%q: got %v", s, err)
		}
	}
	for _, s := range []string{"-1", "+1", "abc", "", "9007199254740992", "18446744073709551616", "1.5", "1e3"} {
		if _, err := muster.ParseIndex(s); !errors.Is(err, muster.CodeInvalidIndex) {
			t.Errorf("%q: got %v", s, err)
		}
	}
}

func TestETag(t *testing.T) {
	i := muster.Instance{ModifyIndex: 57, Place: 2}
	idx, place, err := muster.ParseETag(i.ETag())
	if err != nil || idx != 57 || place != 2 {
		t.Errorf("got %d, %d, %v", idx, place, err)
	}
	if idx, place, err = muster.ParseETag("57"); err != nil || idx != 57 || place != -1 {
		t.Errorf("got %d, %d, %v", idx, place, err)
	}
}

func TestErrorCodes(t *testing.T) {
	inner := errors.New("disk on fire")
	err := fmt.Errorf("registering: %w", muster.Errorf(muster.CodeNoLeader, "no leader").WithCause(inner))
	if !errors.Is(err, muster.CodeNoLeader) || errors.Is(err, muster.CodeFenced) || !errors.Is(err, inner) {
		t.Errorf("errors.Is does not see through %v", err)
	}
	if got := muster.CodeOf(err); got != muster.CodeNoLeader {
		t.Errorf("got %s", got)
	}
	if got := muster.CodeOf(inner); got != muster.CodeInternal {
		t.Errorf("got %s", got)
	}
}

func TestViewDerivesOnce(t *testing.T) {
	v := &muster.View{Namespace: "default", Service: "web", Index: 7, Instances: []*muster.Instance{
		{ID: "a", Routable: true}, {ID: "b"}, {ID: "c", Routable: true},
	}}
	var mu sync.Mutex
	built := 0
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			got := v.Derive("x", func(*muster.View) any { mu.Lock(); defer mu.Unlock(); built++; return built })
			if got != 1 || len(v.JSON()) == 0 || v.Routable() != 2 {
				t.Errorf("got %v", got)
			}
		})
	}
	wg.Wait()
	if built != 1 {
		t.Errorf("built %d times, want once", built)
	}
	if v.Find("b") != v.Instances[1] || v.Find("bb") != nil || v.Find("z") != nil {
		t.Error("Find is wrong")
	}
	f := v.Filtered(func(i *muster.Instance) bool { return i.ID == "nobody" })
	if f.EmptyReason != muster.EmptyFiltered || f.Index != 7 || string(f.JSON()) != `{"namespace":"default","service":"web","index":7,"instances":[],"protected":false,"empty_reason":"filtered"}` {
		t.Errorf("got %s", f.JSON())
	}
}

func TestQuery(t *testing.T) {
	yes := true
	i := &muster.Instance{Status: muster.StatusUp, Routable: true, Zone: "a", Version: "1", Tags: []string{"x", "y"}, Meta: map[string]string{"team": "pay"}}
	tests := []struct {
		q    muster.Query
		want bool
		key  string
	}{
		{muster.Query{}, true, ""},
		{muster.Query{Status: muster.StatusUp, Routable: &yes}, true, "routable=true&status=up"},
		{muster.Query{Tags: []string{"y", "x"}}, true, "tag=x&tag=y"},
		{muster.Query{Tags: []string{"x", "z"}}, false, "tag=x&tag=z"},
		{muster.Query{Meta: map[string]string{"team": "pay"}, Zone: "a"}, true, "meta.team=pay&zone=a"},
		{muster.Query{Meta: map[string]string{"gone": ""}}, false, "meta.gone="},
		{muster.Query{Version: "2"}, false, "version=2"},
	}
	for _, tt := range tests {
		if got := tt.q.Match(i); got != tt.want {
			t.Errorf("%+v: got %v", tt.q, got)
		}
		if got := tt.q.Key(); got != tt.key {
			t.Errorf("%+v: key %q, want %q", tt.q, got, tt.key)
		}
	}
}
