package httpapi_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/httpapi"
)

// nowhere is a listener for servers that are only asked through their Handler,
// inside a bubble of virtual time.
type nowhere struct{}

func (nowhere) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (nowhere) Close() error              { return nil }
func (nowhere) Addr() net.Addr            { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7400} }

// polled is a server in a bubble.
type polled struct {
	t        *testing.T
	registry *memory
	server   *httpapi.Server
}

func newPolled(t *testing.T) *polled {
	p := &polled{t: t, registry: newMemory()}
	var err error
	p.server, err = httpapi.New(httpapi.Config{}, depsOf(nowhere{}, p.registry))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *polled) register(service, id string, edit func(*muster.Instance)) uint64 {
	p.t.Helper()
	i := &muster.Instance{Service: service, ID: id, Address: "10.0.0.1", Port: 80, Weight: 100, Zone: "a"}
	if edit != nil {
		edit(i)
	}
	w, err := p.registry.Register(p.t.Context(), muster.Caller{}, i, muster.Condition{})
	if err != nil {
		p.t.Fatal(err)
	}
	return w.Index
}

// answerTo is a request that is under way.
type answerTo struct {
	*httptest.ResponseRecorder
	done  bool
	after time.Duration
	ended chan struct{} // closed once done is set
}

// over reports whether the answer is there, also while a timer may bring it.
func (a *answerTo) over() bool {
	select {
	case <-a.ended:
		return true
	default:
		return false
	}
}

// get starts a request; its answer is looked at after synctest.Wait.
func (p *polled) get(ctx context.Context, target string) *answerTo {
	a := &answerTo{ResponseRecorder: httptest.NewRecorder(), ended: make(chan struct{})}
	r := httptest.NewRequestWithContext(ctx, "GET", "http://localhost"+target, nil)
	start := time.Now()
	go func() {
		p.server.Handler().ServeHTTP(a, r)
		a.done, a.after = true, time.Since(start)
		close(a.ended)
	}()
	synctest.Wait()
	return a
}

func (a *answerTo) index() uint64 {
	n, _ := strconv.ParseUint(a.Header().Get("Muster-Index"), 10, 64)
	return n
}

// advance lets virtual time pass, and all that happens in it.
func advance(d time.Duration) {
	<-time.NewTimer(d).C
	synctest.Wait()
}

func bubble(t *testing.T, f func(t *testing.T, p *polled)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newPolled(t)) })
}

func TestPollAnswersAtOnceWhatIsNewer(t *testing.T) {
	bubble(t, func(t *testing.T, p *polled) {
		first := p.register("web", "a", nil)
		second := p.register("web", "b", nil)
		for _, target := range []string{"/v1/services/web?index=1", "/v1/services?index=1", "/v1/services/web/instances/b?index=1", "/v1/services/web?wait=1m", "/v1/services/web?index=0&wait=1m", "/v1/services/web?index=1&zone=a"} {
			a := p.get(t.Context(), target)
			if !a.done || a.Code != 200 || a.index() != second || a.after != 0 {
				t.Errorf("%s: done %v, %d, index %d after %s; first %d second %d", target, a.done, a.Code, a.index(), a.after, first, second)
			}
		}
	})
}

func TestPollWaitsForAChange(t *testing.T) {
	for _, target := range []string{"/v1/services/web?index=1&wait=10m", "/v1/services/web/instances?index=1&wait=10m&zone=a", "/v1/services?index=1&wait=10m", "/v1/services/web?index=1&wait=10m&consistency=linearizable"} {
		bubble(t, func(t *testing.T, p *polled) {
			p.register("web", "a", nil)
			a := p.get(t.Context(), target)
			advance(9 * time.Minute)
			if a.done {
				t.Fatalf("%s answered %d before anything changed", target, a.Code)
			}
			index := p.register("web", "b", nil)
			synctest.Wait()
			if !a.done || a.index() != index || !strings.Contains(a.Body.String(), `"index":2`) {
				t.Errorf("%s: done %v, index %d, want %d: %s", target, a.done, a.index(), index, a.Body)
			}
		})
	}
}

func TestPollTimesOut(t *testing.T) {
	for _, c := range []struct {
		query string
		want  time.Duration
	}{
		{"wait=30s", 30 * time.Second}, {"", time.Minute}, {"wait=1000h", 10 * time.Minute}, {"wait=0s", 0},
	} {
		bubble(t, func(t *testing.T, p *polled) {
			p.register("web", "a", nil)
			a := p.get(t.Context(), "/v1/services/web?index=1&"+c.query)
			advance(c.want + c.want/16 + time.Second)
			if !a.done || a.after < c.want || a.after > c.want+c.want/16+time.Microsecond {
				t.Errorf("%q: done %v after %s, want %s and up to a sixteenth more", c.query, a.done, a.after, c.want)
			}
			if a.Code != 200 || a.index() != 1 {
				t.Errorf("%q: answered %d, index %d", c.query, a.Code, a.index())
			}
		})
	}
}

// TestPollIsNotWokenByOthers: what does not change the answer does not end the
// poll, and what happens to other services is not even looked at.
func TestPollIsNotWokenByOthers(t *testing.T) {
	bubble(t, func(t *testing.T, p *polled) {
		p.register("web", "a", nil)
		inZone := p.get(t.Context(), "/v1/services/web?index=1&wait=1m&zone=a")
		whole := p.get(t.Context(), "/v1/services/web?index=1&wait=1m&namespace=default")
		one := p.get(t.Context(), "/v1/services/web/instances/a?index=1&wait=1m")
		missing := p.get(t.Context(), "/v1/services/web/instances/z?index=1&wait=1m")
		listed := p.get(t.Context(), "/v1/services?index=1&wait=1m&prefix=we")
		before := p.registry.reads
		for range 100 {
			p.register("api", "x", func(i *muster.Instance) { i.Port = 1 + int(p.registry.index) })
		}
		synctest.Wait()
		if p.registry.reads != before {
			t.Errorf("changes to another service caused %d reads", p.registry.reads-before)
		}
		p.register("web", "b", func(i *muster.Instance) { i.Zone = "b" })
		synctest.Wait()
		for name, a := range map[string]*answerTo{"zone": inZone, "instance": one, "missing instance": missing} {
			if a.done {
				t.Errorf("the poll of the %s was woken: %d %s", name, a.Code, a.Body)
			}
		}
		for name, a := range map[string]*answerTo{"whole service": whole, "list": listed} {
			if !a.done || a.Code != 200 {
				t.Errorf("the poll of the %s was not woken", name)
			}
		}
		index := p.register("web", "a", func(i *muster.Instance) { i.Port = 81 })
		advance(50 * time.Millisecond) // the service has just woken somebody
		for name, a := range map[string]*answerTo{"zone": inZone, "instance": one} {
			if !a.done || a.index() != index {
				t.Errorf("the poll of the %s: done %v, index %d, want %d", name, a.done, a.index(), index)
			}
		}
		advance(2 * time.Minute)
		if !missing.done || missing.Code != 404 || missing.index() != index {
			t.Errorf("the poll of the missing instance: done %v, %d, index %d", missing.done, missing.Code, missing.index())
		}
	})
}

func TestPollOfAnUnknownService(t *testing.T) {
	bubble(t, func(t *testing.T, p *polled) {
		first := p.get(t.Context(), "/v1/services/web")
		if first.Code != 404 || first.index() == 0 {
			t.Fatalf("answered %d with index %d", first.Code, first.index())
		}
		p.register("api", "x", nil) // moves the index the node has applied
		target := "/v1/services/web?wait=1m&index=" + strconv.FormatUint(first.index(), 10)
		a := p.get(t.Context(), target)
		b := p.get(t.Context(), target)
		if a.done || b.done {
			t.Fatal("answered before the service appeared")
		}
		index := p.register("web", "a", nil)
		synctest.Wait()
		if !a.done || a.Code != 200 || a.index() != index {
			t.Errorf("done %v, %d, index %d, want %d", a.done, a.Code, a.index(), index)
		}
		late := p.get(t.Context(), "/v1/services/none?wait=30s&index=2")
		advance(time.Minute)
		if !late.done || late.Code != 404 || late.index() == 0 {
			t.Errorf("a timed-out poll of an unknown service: done %v, %d, index %d", late.done, late.Code, late.index())
		}
	})
}

// TestPollNeverAnswersOlder: a cursor of a node that is ahead waits for this one.
func TestPollNeverAnswersOlder(t *testing.T) {
	bubble(t, func(t *testing.T, p *polled) {
		p.register("web", "a", nil)
		p.registry.confirmed = 50
		a := p.get(t.Context(), "/v1/services/web?index=20&wait=1m")
		behind := p.get(t.Context(), "/v1/services/web?index=40&wait=1m")
		gone := p.get(t.Context(), "/v1/services/web?index=51&wait=1m")
		if a.done || behind.done || !gone.done || gone.Code != 410 {
			t.Fatalf("done %v %v %v, %d", a.done, behind.done, gone.done, gone.Code)
		}
		p.registry.raise(20)
		index := p.register("web", "b", nil)
		p.registry.raise(index)
		synctest.Wait()
		if !a.done || a.index() != index {
			t.Errorf("done %v, index %d, want %d", a.done, a.index(), index)
		}
		advance(2 * time.Minute)
		if !behind.done || behind.Code != 503 || !strings.Contains(behind.Body.String(), `"behind"`) {
			t.Errorf("a cursor that is not reached: done %v, %d %s", behind.done, behind.Code, behind.Body)
		}
	})
}

func TestPollOfWhatTheCallerHas(t *testing.T) {
	bubble(t, func(t *testing.T, p *polled) {
		p.register("web", "a", nil)
		a := &answerTo{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequest("GET", "http://localhost/v1/services/web?index=1&wait=10s", nil)
		r.Header.Set("If-None-Match", `"1"`)
		p.server.Handler().ServeHTTP(a, r)
		if a.Code != http.StatusNotModified || a.Body.Len() != 0 {
			t.Errorf("answered %d %q", a.Code, a.Body)
		}
	})
}

func TestPollEndsWithItsClient(t *testing.T) {
	bubble(t, func(t *testing.T, p *polled) {
		p.register("web", "a", nil)
		ctx, cancel := context.WithCancel(t.Context())
		a := p.get(ctx, "/v1/services/web?index=1&wait=10m")
		cancel()
		synctest.Wait()
		if !a.done || a.after != 0 {
			t.Errorf("done %v after %s", a.done, a.after)
		}
	})
}

// TestPollOfAFlappingService: the first change is told at once, and from then on
// one in 50 ms, to all at the same moment and always with the latest.
func TestPollOfAFlappingService(t *testing.T) {
	bubble(t, func(t *testing.T, p *polled) {
		index := p.register("web", "a", nil)
		const target = "/v1/services/web?wait=10m&index="
		flap := func() uint64 {
			return p.register("web", "a", func(i *muster.Instance) { i.Port = 1 + int(p.registry.index%60_000) })
		}
		for _, path := range []string{target, "/v1/services/web/instances/a?wait=10m&index=", "/v1/services?wait=10m&index="} {
			advance(time.Second)
			waiting := []*answerTo{p.get(t.Context(), path+strconv.FormatUint(index, 10)), p.get(t.Context(), path+strconv.FormatUint(index, 10))}
			index = flap()
			synctest.Wait()
			for _, a := range waiting {
				if !a.over() || a.after != 0 {
					t.Fatalf("%s: the first change was told after %s (%v)", path, a.after, a.over())
				}
			}
			answers := 0
			for range 100 { // every 10 ms a change, for a second
				advance(10 * time.Millisecond)
				latest := flap()
				synctest.Wait()
				for n, a := range waiting {
					if !a.over() {
						continue
					}
					if waiting[1-n].over() != a.over() && n == 0 {
						t.Fatalf("%s: one was told and not the other", path)
					}
					if got := a.index(); got+5 < latest {
						t.Fatalf("%s: told %d, where %d is the latest", path, got, latest)
					}
					answers++
					index = a.index()
					waiting[n] = p.get(t.Context(), path+strconv.FormatUint(index, 10))
				}
			}
			if answers < 2*10 || answers > 2*21 {
				t.Errorf("%s: %d answers to two in a second of changes", path, answers)
			}
			for _, a := range waiting {
				index = flap()
				advance(time.Second)
				if !a.over() {
					t.Errorf("%s: the last change was not told", path)
				}
			}
			index = flap()
			other := p.get(t.Context(), "/v1/services/api?wait=10m&index="+strconv.FormatUint(index, 10))
			p.register("api", "x", func(i *muster.Instance) { i.Port = int(index) })
			synctest.Wait()
			if !other.over() || other.after != 0 {
				t.Errorf("%s: another service was held back too", path)
			}
			index = p.registry.index
		}
	})
}
