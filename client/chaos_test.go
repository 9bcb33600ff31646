package client_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
)

// picture is a view in full, to be compared.
func picture(v *muster.View) string {
	var b strings.Builder
	for _, i := range v.Instances {
		fmt.Fprintf(&b, "%s:%d@%d ", i.ID, i.Weight, i.ModifyIndex)
	}
	if v.Settings != nil {
		b.WriteString(v.Settings.Strategy)
	}
	return b.String()
}

// TestWatchChaos: services change at random while nodes fail, and come back, at
// random. Every view that is shown is exactly what the registry was at its index,
// none is older than the one before it, and in the end they are those of the
// registry.
func TestWatchChaos(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { chaos(t, rand.New(rand.NewPCG(seed, 7))) })
		})
	}
}

func chaos(t *testing.T, rnd *rand.Rand) {
	w, r := newWorld(), newRegistry()
	hosts := w.nodes(r, 3)
	c := newClient(t, w, hosts, func(cfg *client.Config) { cfg.HoldExpired = -1 })
	services := []string{"web", "api", "db"}
	history := map[string]string{}
	note := func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, s := range services {
			v, _ := r.view(muster.ServiceKey{Namespace: muster.DefaultNamespace, Service: s})
			history[fmt.Sprint(s, v.Index)] = picture(v)
		}
	}
	for _, s := range services {
		r.put(lasting(s, "first"))
		note() // an index is one entry's, and so is a note
	}
	var watches []*client.Watch
	type shown struct {
		service, picture string
		index            uint64
	}
	var mu sync.Mutex
	var all []shown
	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	follow := func(s string) {
		web := mustWatch(t, c, s)
		watches = append(watches, web)
		watching.Go(func() {
			last := uint64(0)
			for v := range web.Views(ctx) {
				if v.Index < last {
					t.Errorf("%s went back from %d to %d", s, last, v.Index)
				}
				last = v.Index
				mu.Lock()
				all = append(all, shown{s, picture(v), v.Index})
				mu.Unlock()
			}
		})
	}
	follow("web")
	for n := range 400 {
		time.Sleep(time.Duration(rnd.IntN(3000)) * time.Millisecond)
		switch n {
		case 50:
			follow("api")
		case 200:
			follow("db")
		}
		disturb(rnd, r, hosts[rnd.IntN(3)])
		change(rnd, r, services[rnd.IntN(3)])
		note()
	}
	r.mu.Lock()
	r.noWatch, r.stale = false, 0
	r.wake()
	r.mu.Unlock()
	for _, h := range hosts {
		h.become(works)
	}
	time.Sleep(5 * time.Minute)
	for n, s := range services {
		r.mu.Lock()
		v, _ := r.view(muster.ServiceKey{Namespace: muster.DefaultNamespace, Service: s})
		r.mu.Unlock()
		if got := watches[n].View(); picture(got) != picture(v) || got.Index != v.Index {
			t.Errorf("%s is at %d %s in the end, the registry at %d %s", s, got.Index, picture(got), v.Index, picture(v))
		}
	}
	stop()
	watching.Wait()
	for _, a := range all {
		if want, ok := history[fmt.Sprint(a.service, a.index)]; !ok || a.picture != want {
			t.Errorf("%s at %d was shown as %q, and was %q", a.service, a.index, a.picture, want)
		}
	}
	if len(all) < 100 {
		t.Errorf("only %d views were shown", len(all))
	}
}

// disturb changes how a node behaves, or all of them.
func disturb(rnd *rand.Rand, r *registry, h *host) {
	switch rnd.IntN(12) {
	case 0:
		h.become(down)
	case 1:
		h.become(silent)
	case 2:
		h.answer(muster.CodeCatchingUp)
	case 3:
		h.answer(muster.CodeRateLimited)
	case 4:
		r.mu.Lock()
		r.noWatch = !r.noWatch
		r.mu.Unlock()
	case 5:
		r.mu.Lock()
		r.stale = 5000 - r.stale
		r.wake()
		r.mu.Unlock()
	case 6, 7, 8, 9:
		h.become(works)
	}
}

// change makes one entry.
func change(rnd *rand.Rand, r *registry, service string) {
	switch id := fmt.Sprintf("i-%d", rnd.IntN(4)); rnd.IntN(4) {
	case 0, 1:
		i := lasting(service, id)
		i.Weight = 1 + rnd.IntN(100)
		r.put(i)
	case 2:
		if r.find(service, id) != nil {
			r.drop(service, id, muster.EventDeregistered, muster.EmptyDeregistered)
		}
	case 3:
		s := muster.DefaultSettings()
		s.Strategy = muster.StrategyNames()[rnd.IntN(9)]
		if rnd.IntN(3) == 0 {
			r.configure(service, nil)
		} else {
			r.configure(service, &s)
		}
	}
}
