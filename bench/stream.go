package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// streams are watchers, each a connection of its own that is read by a goroutine of
// its own with small buffers: ten thousand of them are to cost little beside the nodes.
type streams struct {
	// buffer is how long a line may be that is told whole; 0 is 1 KiB.
	buffer int

	conns  []net.Conn
	synced atomic.Int64 // how many have been told synced
	wg     sync.WaitGroup

	mu  sync.Mutex
	err error // guarded by mu: the first failure
}

// open opens a stream for each of the urls. told is called by each stream's
// goroutine with its number and the data line of every change, or as much of it as the buffer
// holds. All are synced when it
// returns without an error; close ends them in any case.
func (s *streams) open(ctx context.Context, conf *tls.Config, urls []string, told func(stream int, data []byte)) error {
	s.conns = make([]net.Conn, len(urls))
	var wg sync.WaitGroup
	const dialers = 16
	for d := range min(dialers, len(urls)) {
		wg.Go(func() {
			for n := d; n < len(urls) && ctx.Err() == nil; n += dialers {
				conn, err := dial(ctx, conf, urls[n])
				if err != nil {
					s.fail(err)
					return
				}
				s.conns[n] = conn
				s.wg.Go(func() { s.follow(conn, func(data []byte) { told(n, data) }) })
			}
		})
	}
	wg.Wait()
	return until(ctx, "all streams to be synced", func() (bool, error) {
		return int(s.synced.Load()) == len(urls), s.failed()
	})
}

// dial asks for a stream.
func dial(ctx context.Context, conf *tls.Config, target string) (net.Conn, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("reading the address of a stream: %w", err)
	}
	var conn net.Conn
	if dialer := (&net.Dialer{Timeout: 10 * time.Second}); u.Scheme == "https" {
		conn, err = (&tls.Dialer{NetDialer: dialer, Config: conf}).DialContext(ctx, "tcp", u.Host)
	} else {
		conn, err = dialer.DialContext(ctx, "tcp", u.Host)
	}
	if err != nil {
		return nil, fmt.Errorf("opening a stream: %w", err)
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", u.RequestURI(), u.Host); err != nil {
		return nil, errors.Join(fmt.Errorf("asking for a stream: %w", err), conn.Close())
	}
	return conn, nil
}

// follow reads a stream to its end.
func (s *streams) follow(conn net.Conn, told func(data []byte)) {
	resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 1<<10), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.fail(fmt.Errorf("a stream was not answered: %w", errors.Join(err, statusError(resp))))
		return
	}
	change, begins := false, true
	for lines := bufio.NewReaderSize(resp.Body, max(s.buffer, 1<<10)); ; {
		line, err := lines.ReadSlice('\n')
		if begins {
			text := strings.TrimSuffix(string(line[:min(len(line), 32)]), "\n")
			switch {
			case text == "event: synced":
				s.synced.Add(1)
			case text == "event: goodbye", text == "event: resync":
				s.fail(fmt.Errorf("a stream was told %q: it missed something", text))
			case text == "event: change":
				change = true
			case change && strings.HasPrefix(text, "data:"):
				change = false
				told(line)
			}
		}
		begins = err == nil
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return // ended by the node, or by close
		}
	}
}

func statusError(resp *http.Response) error {
	if resp == nil {
		return nil
	}
	return fmt.Errorf("status %s", resp.Status)
}

func (s *streams) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

func (s *streams) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// close ends all streams and returns when their goroutines have ended.
func (s *streams) close() {
	for _, c := range s.conns {
		if c != nil {
			c.Close()
		}
	}
	s.wg.Wait()
}
