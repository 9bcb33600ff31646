package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/httpapi"
)

// timedLists answers one event, of the time it is asked for.
type timedLists struct {
	*memory
	index atomic.Uint64
}

func (r *timedLists) Events(_ context.Context, q muster.EventQuery, _ muster.ReadOptions) (*muster.Events, muster.ReadInfo, error) {
	index := r.index.Load()
	e := &muster.Event{Index: index, ID: fmt.Sprint(index, q.Limit), Time: time.Now()}
	return &muster.Events{Index: index, Events: []*muster.Event{e}}, muster.ReadInfo{Index: index}, nil
}

// TestListsAreRenderedOnce: the same list at the same index is the same bytes, another
// query or index is not.
func TestListsAreRenderedOnce(t *testing.T) {
	lists := &timedLists{memory: newMemory()}
	lists.index.Store(7)
	deps := depsOf(nowhere{}, lists.memory)
	deps.Registry = lists
	server, err := httpapi.New(httpapi.Config{}, deps)
	if err != nil {
		t.Fatal(err)
	}
	get := func(target string) (answer muster.Events, text string) {
		t.Helper()
		w := httptest.NewRecorder()
		server.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "http://localhost"+target, nil))
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != 200 {
			t.Fatalf("%s: %d %s %v", target, w.Code, w.Body, err)
		}
		return answer, w.Body.String()
	}
	// The time in an event is that of its rendering: two that are equal are one.
	_, first := get("/v1/events?limit=5")
	if _, again := get("/v1/events?limit=5"); again != first {
		t.Errorf("the same list is rendered twice: %s and %s", first, again)
	}
	if other, _ := get("/v1/events?limit=6"); other.Events[0].ID != "7 6" {
		t.Errorf("another query is answered %+v", other.Events[0])
	}
	lists.index.Store(8)
	if later, _ := get("/v1/events?limit=5"); later.Index != 8 || later.Events[0].ID != "8 5" {
		t.Errorf("a later index is answered %+v", later.Events[0])
	}
	lists.index.Store(7)
	for n := range 20 { // more than are remembered
		get(fmt.Sprint("/v1/events?limit=", 100+n))
	}
	if _, again := get("/v1/events?limit=5"); again == first {
		t.Error("the first list is remembered for ever")
	}
}
