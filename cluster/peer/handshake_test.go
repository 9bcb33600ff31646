package peer_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/muster-registry/muster/cluster/peer"
	"github.com/muster-registry/muster/wire"
)

// frame makes a message of the handshake by hand.
func frame(version, what byte, size int, body []byte) []byte {
	b := append([]byte("muster"), version, what)
	return append(binary.BigEndian.AppendUint16(b, uint16(size)), body...)
}

// rawHello encodes a hello by hand, unchecked.
func rawHello(cluster, node, addr string) []byte {
	var b []byte
	for num, s := range map[wire.Number]string{1: cluster, 3: node, 7: addr} {
		b = protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
	}
	return b
}

func helloFrame(kind byte, body []byte) []byte { return frame(1, kind, len(body), body) }

// lockedBuffer is a log that is written and read at once.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func dialRaw(t testing.TB, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestGarbageOnThePort(t *testing.T) {
	var tlsHello bytes.Buffer
	pipe, other := net.Pipe()
	go func() {
		_ = tls.Client(pipe, &tls.Config{ServerName: "x"}).Handshake() // cut short on purpose
	}()
	buf := make([]byte, 1024)
	n, err := other.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	tlsHello.Write(buf[:n])
	pipe.Close()
	other.Close()

	tests := []struct {
		name   string
		send   []byte
		answer string // "": the connection ends without a word
		code   string
	}{
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "", "not_muster"},
		{"HTTP/2", []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "", "not_muster"},
		{"TLS", tlsHello.Bytes(), "no_key", "no_key"},
		{"zeros", make([]byte, 4096), "", "not_muster"},
		{"log injection", []byte("x\nlevel=ERROR msg=forged\n\x1b[31m"), "", "not_muster"},
		{"a body too large", frame(1, 'c', 65535, nil), "", "bad_hello"},
		{"half a hello", frame(1, 'c', 100, []byte("half")), "", "timeout"},
		{"half a head", []byte("mus"), "", "timeout"},
		{"silence", nil, "", "timeout"},
		{"another version", frame(9, 'c', 3, []byte{1, 2, 3}), "bad_version", "bad_version"},
		{"another kind", helloFrame('z', rawHello("test", "n", "a:1")), "bad_version", "bad_version"},
		{"no protobuf", helloFrame('c', []byte{0xff, 0xff, 0xff}), "bad_hello", "bad_hello"},
		{"an empty hello", helloFrame('c', nil), "bad_hello", "bad_hello"},
		{"a forging name", helloFrame('c', rawHello("test", "n\nlevel=ERROR msg=forged", "a:1")), "bad_hello", "bad_hello"},
		{"a huge name", helloFrame('c', rawHello("test", strings.Repeat("n", 3000), "a:1")), "bad_hello", "bad_hello"},
		{"no address", helloFrame('c', rawHello("test", "n", "nowhere")), "bad_hello", "bad_hello"},
		{"a hello and no verdict", helloFrame('r', rawHello("test", "n", "a:1")), "server", "timeout"},
		{"a hello and a forging refusal", append(helloFrame('r', rawHello("test", "n", "a:1")),
			frame(1, 1, 8, []byte("\x0a\x06x\ny=z\n"))...), "server", "refused"},
		{"a hello and a refusal that is no protobuf", append(helloFrame('r', rawHello("test", "n", "a:1")),
			frame(1, 1, 3, []byte{0xff, 0xff, 0xff})...), "server", "bad_hello"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var logs lockedBuffer
			reg := prometheus.NewRegistry()
			caller, server := pair(t, peer.Config{}, peer.Config{
				HandshakeTimeout: 100 * time.Millisecond, Registerer: reg,
				Logger: slog.New(slog.NewTextHandler(&logs, nil)),
			}, nil)
			c := dialRaw(t, server.Advertised())
			if _, err := c.Write(tt.send); err != nil {
				t.Fatal(err)
			}
			answer, _ := io.ReadAll(c) // ends, perhaps by a reset
			if !strings.Contains(string(answer), tt.answer) || tt.answer == "" && len(answer) > 0 {
				t.Errorf("answer %q, want one with %q", answer, tt.answer)
			}
			until(t, "the refusal is counted", func() bool {
				return counterValue(t, reg, "muster_peer_handshakes_refused_total", map[string]string{"direction": "in", "code": tt.code}) == 1
			})
			for line := range strings.Lines(logs.String()) {
				if strings.HasPrefix(line, "level=") || strings.ContainsRune(line, 0x1b) {
					t.Errorf("a forged line in the log: %q", line)
				}
			}
			if _, err := caller.Call(t.Context(), server.Advertised(), "echo", nil); err != nil {
				t.Errorf("a call afterwards: %v", err)
			}
		})
	}
}

func TestGarbageDoesNotFillTheLog(t *testing.T) {
	var logs lockedBuffer
	reg := prometheus.NewRegistry()
	_, server := pair(t, peer.Config{}, peer.Config{Logger: slog.New(slog.NewTextHandler(&logs, nil)), Registerer: reg}, nil)
	const strangers = 300
	for range strangers {
		c := dialRaw(t, server.Advertised())
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadAll(c)
	}
	until(t, "all are counted", func() bool {
		return counterValue(t, reg, "muster_peer_handshakes_refused_total", map[string]string{"code": "not_muster"}) == strangers
	})
	if n := strings.Count(logs.String(), "\n"); n < 1 || n > 5 {
		t.Errorf("%d strangers made %d lines, want a few:\n%s", strangers, n, logs.String())
	}
}

func TestSilentConnectionsDoNotKeepNodesOut(t *testing.T) {
	caller, server := pair(t, peer.Config{}, peer.Config{MaxHandshakes: 8}, nil)
	for range 50 {
		dialRaw(t, server.Advertised())
	}
	start := time.Now()
	if _, err := caller.Call(withTimeout(t, 10*time.Second), server.Advertised(), "echo", nil); err != nil {
		t.Fatalf("a call beside 50 silent connections: %v", err)
	}
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("the call took %s", d)
	}
}

func TestTooManyConnections(t *testing.T) {
	_, server := pair(t, peer.Config{}, peer.Config{MaxConns: 2}, nil)
	l := newPort(t, "dialler", peer.Config{}).StreamLayer()
	accepted := server.StreamLayer()
	for range 2 {
		c, err := l.Dial(raft.ServerAddress(server.Advertised()), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		in, err := accepted.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
	}
	_, err := l.Dial(raft.ServerAddress(server.Advertised()), time.Second)
	wantRefused(t, err, peer.CodeBusy, true)
}

func TestBothSidesAdmit(t *testing.T) {
	type seen struct {
		hello peer.Hello
		kind  peer.Kind
	}
	seenBy := make(chan string, 4)
	var byCaller, byServer seen
	caller, server := pair(t,
		peer.Config{Admit: func(h peer.Hello, k peer.Kind) error { byCaller = seen{h, k}; seenBy <- "caller"; return nil }},
		peer.Config{Advertise: "localhost", Admit: func(h peer.Hello, k peer.Kind) error { byServer = seen{h, k}; seenBy <- "server"; return nil }}, nil)
	if _, err := caller.Call(t.Context(), server.Advertised(), "echo", nil); err != nil {
		t.Fatal(err)
	}
	<-seenBy
	<-seenBy
	if want := (seen{hello("server", server.Advertised()), peer.KindRPC}); byCaller != want {
		t.Errorf("the caller was shown %+v, want %+v", byCaller, want)
	}
	if want := (seen{hello("caller", caller.Advertised()), peer.KindRPC}); byServer != want {
		t.Errorf("the server was shown %+v, want %+v", byServer, want)
	}
	if len(seenBy) > 0 {
		t.Error("Admit was asked twice for one connection")
	}
}

func TestAdvertisedAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bound := l.Addr().String()
	l.Close()
	_, port, err := net.SplitHostPort(bound)
	if err != nil {
		t.Fatal(err)
	}
	for advertise, want := range map[string]string{
		"":                  bound,
		"db1.example":       "db1.example:" + port,
		"db1.example:0":     "db1.example:" + port,
		"db1.example:7401":  "db1.example:7401",
		":0":                bound,
		"[2001:db8::1]:0":   "[2001:db8::1]:" + port,
		"2001:db8::1":       "[2001:db8::1]:" + port,
		"[2001:db8::1]:741": "[2001:db8::1]:741",
	} {
		p := newPort(t, "a", peer.Config{Bind: bound, Advertise: advertise})
		if got := p.Advertised(); got != want {
			t.Errorf("Advertise %q gives %q, want %q", advertise, got, want)
		}
		if got := p.StreamLayer().Addr(); got.String() != want || got.Network() != "tcp" {
			t.Errorf("the stream layer's address is %v, want %s", got, want)
		}
		if p.Addr().String() != bound {
			t.Errorf("Addr = %v, want %s", p.Addr(), bound)
		}
		p.Close()
	}
	if _, err := peer.New(peer.Config{Bind: "256.0.0.1:0", Self: func() peer.Hello { return peer.Hello{} }}); err == nil {
		t.Error("New on a nonsense address succeeded")
	}
}

// TestUnknownFieldsOfAHelloAreSkipped: a later version says more.
func TestUnknownFieldsOfAHelloAreSkipped(t *testing.T) {
	_, server := pair(t, peer.Config{}, peer.Config{}, nil)
	c := dialRaw(t, server.Advertised())
	body := rawHello("test", "later", "127.0.0.1:1")
	body = protowire.AppendBytes(protowire.AppendTag(body, 9, protowire.BytesType), []byte("proof"))
	body = protowire.AppendFixed64(protowire.AppendTag(body, 10, protowire.Fixed64Type), 1)
	if _, err := c.Write(helloFrame('c', body)); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 10)
	if _, err := io.ReadFull(c, head); err != nil || head[7] != 0 {
		t.Fatalf("answer %q, %v, want a welcome", head, err)
	}
}

// pipeListener hands out one end of in-memory connections.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7401} }

func FuzzHandshake(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add(helloFrame('c', rawHello("test", "n", "a:1")))
	f.Add(append(helloFrame('r', rawHello("test", "n", "a:1")), frame(1, 0, 0, nil)...))
	f.Add(append(helloFrame('c', rawHello("test", "n", "a:1")), frame(1, 0, 0, nil)...))
	f.Add(append(helloFrame('r', rawHello("test", "n", "a:1")), frame(1, 1, 5, []byte("\x0a\x03\xff\xfea"))...))
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	var problem error
	server := newPort(f, "server", peer.Config{
		Listener: l, HandshakeTimeout: 50 * time.Millisecond,
		Admit: func(h peer.Hello, k peer.Kind) error {
			for _, s := range []string{h.Cluster, h.ClusterID, h.NodeID, h.Version, h.Addr} {
				if len(s) > 256 || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
					problem = fmt.Errorf("Admit was shown %q", s)
				}
			}
			if k != peer.KindRaft && k != peer.KindRPC || h.NodeID == "" || h.Cluster == "" {
				problem = fmt.Errorf("Admit was shown kind %d of %+v", k, h)
			}
			return nil
		},
	})
	serve(f, server)
	f.Fuzz(func(t *testing.T, data []byte) {
		near, far := net.Pipe()
		l.conns <- far
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			_, _ = io.Copy(io.Discard, near)
		}()
		_ = near.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = near.Write(data)
		_ = near.Close()
		<-drained
		if problem != nil {
			t.Fatal(problem)
		}
	})
}

// FuzzAnswer has a port dial something that answers nonsense.
func FuzzAnswer(f *testing.F) {
	body := rawHello("test", "n", "a:1")
	f.Add(frame(1, 0, len(body), body))
	f.Add(frame(1, 1, 6, []byte("\x0a\x04code")))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	layer := newPort(f, "dialler", peer.Config{}).StreamLayer()
	f.Fuzz(func(t *testing.T, data []byte) {
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = c.Write(data)
		}()
		c, err := layer.Dial(raft.ServerAddress(l.Addr().String()), time.Second)
		if err == nil {
			c.Close()
		} else if strings.ContainsFunc(err.Error(), unicode.IsControl) {
			t.Errorf("error %q could forge a line", err)
		}
		<-answered
	})
}
