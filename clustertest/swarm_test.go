package clustertest_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/muster-registry/muster/clustertest"
)

// TestMain lets this test binary stand in for a crowd of clients in a process of
// its own: their files and their memory are then not those of the nodes.
func TestMain(m *testing.M) {
	if order := os.Getenv(actAsSwarm); order != "" {
		if err := runSwarm(order, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "swarm:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// actAsSwarm holds the order of a swarm.
const actAsSwarm = "MUSTER_TEST_ACT_AS_SWARM"

// order says what a swarm does: it makes Count connections, spread over Addrs,
// and sends one GET of Path on each.
type order struct {
	Addrs []string
	Count int
	Path  string
	// Stuck connections have small buffers and read nothing.
	Stuck bool
}

// swarm is the process of a crowd. What it sees it tells in lines, each a word
// and when it happened:
//
//	open      all requests were sent
//	answered  all have had the head of an answer
//	synced    all have been told synced
//	change:N  all have been told N changes
//	goodbye   all have been told goodbye
//	closed    all connections were ended by the other side
type swarm struct {
	t     testing.TB
	lines *bufio.Scanner
	stop  func()
}

func startSwarm(t testing.TB, o order) *swarm {
	t.Helper()
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur < uint64(o.Count)+500 {
		t.Skipf("%d connections are more than %d open files allow (%v)", o.Count, files.Cur, err)
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), actAsSwarm+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &swarm{t: t, lines: bufio.NewScanner(out)}
	s.stop = sync.OnceFunc(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the swarm ended with %v", err)
		}
	})
	t.Cleanup(s.stop)
	return s
}

// await returns when all had seen what; lines about other things are passed over.
func (s *swarm) await(what string) time.Time {
	s.t.Helper()
	// A swarm that sees nothing more ends by itself, see runSwarm.
	for s.lines.Scan() {
		word, at, _ := strings.Cut(s.lines.Text(), " ")
		if word == what {
			ns, err := strconv.ParseInt(at, 10, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return time.Unix(0, ns)
		}
	}
	s.t.Fatalf("the swarm has not seen %q", what)
	return time.Time{}
}

// tally counts what the members of a swarm have seen, and tells when the last of
// them has.
type tally struct {
	all  int
	mu   sync.Mutex
	out  io.Writer      // guarded by mu, as all below
	seen map[string]int // how many have
	last time.Time      // when anybody has seen anything
}

func (t *tally) note(what string) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = now
	if t.seen[what]++; t.seen[what] == t.all {
		fmt.Fprintf(t.out, "%s %d\n", what, now.UnixNano())
	}
}

// runSwarm is the process: it ends when in does, or when nothing was seen for
// longer than a test waits.
func runSwarm(text string, in io.Reader, out io.Writer) error {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	t := &tally{all: o.Count, out: out, seen: map[string]int{}, last: time.Now()}
	conns := make([]net.Conn, o.Count)
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for n := w; n < o.Count; n += 16 {
				c, err := dialOne(o, o.Addrs[n%len(o.Addrs)])
				if err != nil {
					failed.Store(&err)
					return
				}
				conns[n] = c
				t.note("open")
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	if !o.Stuck {
		for _, c := range conns {
			go func() { follow(t, c) }()
		}
	}
	ended := make(chan struct{})
	go func() { io.Copy(io.Discard, in); close(ended) }()
	tick := time.NewTicker(time.Second)
	for {
		select {
		case <-ended:
			return nil
		case now := <-tick.C:
			t.mu.Lock()
			idle := now.Sub(t.last)
			t.mu.Unlock()
			if idle > 2*clustertest.Patience {
				return fmt.Errorf("nothing was seen for %s; so far %v of %d", idle, t.seen, o.Count)
			}
		}
	}
}

func dialOne(o order, addr string) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", addr, clustertest.Patience)
	if err != nil {
		return nil, err
	}
	if o.Stuck {
		if err := c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
			return nil, err
		}
	}
	_, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", o.Path)
	return c, err
}

// follow reads the answer on a connection to its end.
func follow(t *tally, c net.Conn) {
	defer t.note("closed")
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, 1<<10), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		return
	}
	t.note("answered")
	changes, begins := 0, true
	for lines := bufio.NewReaderSize(resp.Body, 256); ; {
		line, err := lines.ReadSlice('\n')
		if begins {
			switch strings.TrimSuffix(string(line[:min(len(line), 32)]), "\n") {
			case "event: synced":
				t.note("synced")
			case "event: goodbye":
				t.note("goodbye")
			case "event: change":
				changes++
				t.note("change:" + strconv.Itoa(changes))
			}
		}
		begins = err == nil
		if err != nil && err != bufio.ErrBufferFull {
			return
		}
	}
}
