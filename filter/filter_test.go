package filter_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/filter"
)

func view(n int) *muster.View {
	v := &muster.View{Namespace: "default", Service: "web", Index: 7, Instances: []*muster.Instance{}}
	for i := range n {
		v.Instances = append(v.Instances, &muster.Instance{
			Namespace: "default", Service: "web", ID: fmt.Sprintf("i-%02d", i), Address: "10.0.0.1", Port: 80, Zone: fmt.Sprint("z", i%2),
			Weight: 100, Tags: []string{fmt.Sprint("t", i%3)}, Meta: map[string]string{"team": fmt.Sprint(i % 5)}, Status: muster.StatusUp, Routable: true,
		})
	}
	return v
}

// TestShared: one narrowed view for all who ask for the same, also at once, and the
// right one for those who come when no more are kept.
func TestShared(t *testing.T) {
	var cache filter.Cache
	v := view(30)
	narrowed := func(q muster.Query) *muster.View {
		f, err := cache.Compile(&q)
		if err != nil {
			t.Error(err)
			return nil
		}
		got, err := f.Apply(v)
		if err != nil {
			t.Error(err)
		}
		return got
	}
	if narrowed(muster.Query{}) != v {
		t.Error("a query for everything gives another view")
	}
	seen := make([]*muster.View, 32)
	var wg sync.WaitGroup
	for n := range seen {
		wg.Go(func() { seen[n] = narrowed(muster.Query{Zone: "z1", Filter: `meta.team == "3"`}) })
	}
	wg.Wait()
	for _, got := range seen {
		if got != seen[0] || len(got.Instances) != 3 || !got.Partial() || got.Index != 7 {
			t.Fatalf("got %d instances, shared %v", len(got.Instances), got == seen[0])
		}
	}
	for n := range 1000 { // more than are kept
		got := narrowed(muster.Query{Filter: fmt.Sprintf(`id == "i-%02d" or weight == %d`, n%30, n+1000)})
		if len(got.Instances) != 1 || got.Instances[0].ID != fmt.Sprintf("i-%02d", n%30) {
			t.Fatalf("filter %d lets %d instances through", n, len(got.Instances))
		}
	}
	if narrowed(muster.Query{Zone: "z1", Filter: `meta.team == "3"`}) != seen[0] {
		t.Error("the first narrowed view is no longer shared")
	}
}

func FuzzExpression(f *testing.F) {
	for _, text := range []string{
		`zone == "z1" and "t0" in tags`, `not (meta.team != "3")`, `id matches "i-0[12]"`, `any tags as t { t == "t1" }`, `ports.metrics == 9100`,
		`zone ==`, `nonsense == 1`, `port == "x"`, strings.Repeat("(", 300), `meta["a"]["b"] == "c"`, `id matches "["`, "\x00", `tags is empty`,
	} {
		f.Add(text)
	}
	v := view(5)
	f.Fuzz(func(t *testing.T, text string) {
		var cache filter.Cache
		made, err := cache.Compile(&muster.Query{Filter: text})
		if err == nil {
			_, err = made.Apply(v)
		}
		if err != nil && !errors.Is(err, muster.CodeInvalidFilter) {
			t.Errorf("%q: %v", text, err)
		}
	})
}
