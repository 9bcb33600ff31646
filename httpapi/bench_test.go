package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/httpapi"
)

const webBody = `{"address":"10.0.0.5","port":8080,"ports":{"metrics":9100},"version":"1.4.2","zone":"eu-1a","weight":100,` +
	`"tags":["canary","blue"],"meta":{"team":"pay","commit":"3f2a9c1"},"ttl":"10s","on_expiry":"remove",` +
	`"checks":[{"name":"live","type":"http","path":"/health","interval":"5s","timeout":"2s","fall":3,"rise":1}],"incarnation":7}`

// get keeps asking over one connection, as a client with keep-alive does, with as
// little work of its own as it can.
func get(b *testing.B, addr, path string, pb *testing.PB) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Error(err)
		return
	}
	defer c.Close()
	r := bufio.NewReaderSize(c, 64<<10)
	req := []byte("GET " + path + " HTTP/1.1\r\nHost: " + addr + "\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
	for pb.Next() {
		if _, err := c.Write(req); err != nil {
			b.Error(err)
			return
		}
		length := 0
		for {
			line, err := r.ReadSlice('\n')
			if err != nil {
				b.Error(err)
				return
			}
			if len(line) <= 2 {
				break
			}
			if v, ok := strings.CutPrefix(string(line), "Content-Length: "); ok {
				fmt.Sscan(v, &length)
			}
		}
		if n, err := r.Discard(length); err != nil || n == 0 {
			b.Errorf("body of %d bytes: %v", n, err)
			return
		}
	}
}

// BenchmarkRead compares a local read of a service with a bare net/http handler
// that writes the same bytes, in turns within one run, so that both see the same
// machine. The ratio is what counts.
func BenchmarkRead(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("instances=%d", n), func(b *testing.B) {
			f := newFixture(b, nil)
			fill(b, f, n)
			f.run(b)
			v, _, err := f.registry.Service(b.Context(), muster.ServiceKey{Service: "web"}, nil, muster.ReadOptions{})
			if err != nil {
				b.Fatal(err)
			}
			versusBare(b, f, "/v1/services/web", v.JSON())
		})
	}
}

// BenchmarkPick is the same for a pick: by its turn and by a key.
func BenchmarkPick(b *testing.B) {
	for _, n := range []int{10, 1000} {
		for name, query := range map[string]string{"turn": "", "key": "?strategy=consistent_hash&key=user-4711"} {
			b.Run(fmt.Sprintf("%s/instances=%d", name, n), func(b *testing.B) {
				f := newFixture(b, nil)
				fill(b, f, n)
				f.run(b)
				w := httptest.NewRecorder()
				f.server.Handler().ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/v1/services/web/pick"+query, nil))
				versusBare(b, f, "/v1/services/web/pick"+query, w.Body.Bytes())
			})
		}
	}
}

// versusBare asks for path and, of a bare net/http handler, for the same bytes, in
// turns, and reports the ratio.
func versusBare(b *testing.B, f *fixture, path string, body []byte) {
	targets := []struct{ addr, path string }{{serveBare(b, body), "/"}, {f.addr, path}}
	var took, cpu [2]time.Duration
	b.SetParallelism(32)
	b.ResetTimer()
	for turn := range 2 {
		for i := range targets {
			if turn == 1 { // the second turn in the other order
				i = 1 - i
			}
			start, used := time.Now(), processorTime(b)
			b.RunParallel(func(pb *testing.PB) { get(b, targets[i].addr, targets[i].path, pb) })
			took[i] += time.Since(start)
			cpu[i] += processorTime(b) - used
		}
	}
	b.ReportMetric(float64(took[0])/float64(took[1]), "x-bare")
	b.ReportMetric(float64(cpu[0])/float64(cpu[1]), "x-bare-cpu")
	b.ReportMetric(2*float64(b.N)/took[1].Seconds(), "answers/s")
	b.ReportMetric(2*float64(b.N)/took[0].Seconds(), "bare/s")
}

// processorTime is what this process has used so far: a measure that other programs
// on the machine disturb less than the clock's.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func fill(b *testing.B, f *fixture, n int) {
	for i := range n {
		inst := &muster.Instance{Weight: 100}
		if err := json.Unmarshal([]byte(webBody), inst); err != nil {
			b.Fatal(err)
		}
		inst.Service, inst.ID = "web", fmt.Sprintf("web-%04d", i)
		if _, err := f.registry.Register(b.Context(), muster.Caller{}, inst, muster.Condition{}); err != nil {
			b.Fatal(err)
		}
	}
}

func serveBare(b *testing.B, body []byte) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	b.Cleanup(func() {
		srv.Close()
		<-done
	})
	return l.Addr().String()
}

// discard is a ResponseWriter that costs nothing.
type discard struct{ h http.Header }

func (d discard) Header() http.Header         { return d.h }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// BenchmarkWrapper is what the server adds to net/http for one read, and for one
// pick.
func BenchmarkWrapper(b *testing.B) {
	for _, path := range []string{"/v1/services/web", "/v1/services/web/pick"} {
		b.Run(path, func(b *testing.B) { benchWrapper(b, path) })
	}
}

func benchWrapper(b *testing.B, path string) {
	f := newFixture(b, nil)
	fill(b, f, 10)
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n")))
	if err != nil {
		b.Fatal(err)
	}
	h := f.server.Handler()
	w := discard{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.h)
		h.ServeHTTP(w, r)
	}
}

// BenchmarkDecode compares the strict decoder with encoding/json, which is not.
func BenchmarkDecode(b *testing.B) {
	body := []byte(webBody)
	b.Run("strict", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := httpapi.DecodeJSON(body, &muster.Instance{Weight: muster.DefaultWeight}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := json.Unmarshal(body, &muster.Instance{Weight: muster.DefaultWeight}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// instant is a registry whose writes cost nothing.
type instant struct {
	*memory
	writes atomic.Int64
}

func (i *instant) Register(_ context.Context, _ muster.Caller, inst *muster.Instance, _ muster.Condition) (muster.Written, error) {
	i.writes.Add(1)
	return muster.Written{Index: 1, Instance: inst}, inst.Normalize()
}

// BenchmarkRegister is the HTTP part of a registration, without the network.
func BenchmarkRegister(b *testing.B) {
	reg := &instant{memory: newMemory()}
	f := newFixture(b, func(_ *httpapi.Config, d *httpapi.Deps) { d.Registry = reg })
	h := f.server.Handler()
	w := discard{http.Header{}}
	r, err := http.NewRequest("PUT", "http://localhost/v1/services/web/instances/web-1", nil)
	if err != nil {
		b.Fatal(err)
	}
	r.RemoteAddr = "127.0.0.1:1234"
	b.ReportAllocs()
	for b.Loop() {
		clear(w.h)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(webBody)), int64(len(webBody))
		h.ServeHTTP(w, r)
	}
	if reg.writes.Load() == 0 {
		b.Fatal("nothing was registered")
	}
}
