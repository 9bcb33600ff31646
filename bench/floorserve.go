package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
)

// ServeFloor is the process of a floor, of one of the kinds: it says on out where it
// is and ends with in, or with ctx. Whoever offers Config.Command has a hidden
// command "bench-floor KIND" that calls it.
func ServeFloor(ctx context.Context, kind string, in io.Reader, out io.Writer) error {
	control := http.NewServeMux()
	control.Handle("GET /metrics", promhttp.Handler())
	servers := []*http.Server{{Handler: control}}
	switch kind {
	case FloorHTTP:
		servers = append(servers, &http.Server{Handler: cannedHandler(control)})
	case FloorRaft:
		bare, err := startBareRaft()
		if err != nil {
			return err
		}
		defer bare.stop()
		control.HandleFunc("POST /run", bare.serveRun)
	default:
		return fmt.Errorf("there is no floor %q", kind)
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	go func() { // ends with in, at the latest with the process
		_, _ = io.Copy(io.Discard, in)
		end()
	}()
	group, ctx := errgroup.WithContext(ctx)
	var urls [2]string
	for n, s := range servers {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			end()
			return errors.Join(fmt.Errorf("opening a port: %w", err), group.Wait())
		}
		urls[n] = "http://" + l.Addr().String()
		group.Go(func() error {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serving: %w", err)
			}
			return nil
		})
		group.Go(func() error { <-ctx.Done(); return s.Close() })
	}
	if err := json.NewEncoder(out).Encode(floorAddrs{Control: urls[0], Load: urls[1]}); err != nil {
		end()
		return errors.Join(fmt.Errorf("saying where the floor is: %w", err), group.Wait())
	}
	return group.Wait()
}

// cannedHandler answers everybody with what PUT /answer has brought, and does nothing
// else: net/http's own work is what is measured.
func cannedHandler(control *http.ServeMux) http.Handler {
	var current atomic.Pointer[canned]
	current.Store(&canned{})
	control.HandleFunc("PUT /answer", func(w http.ResponseWriter, r *http.Request) {
		var c canned
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		current.Store(&c)
		w.WriteHeader(http.StatusNoContent)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c := current.Load()
		maps.Copy(w.Header(), c.Header)
		_, _ = w.Write(c.Body) // whoever has gone needs no answer
	})
}
