package peer_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-registry/muster/cluster/peer"
)

func key(fill byte) []byte { return bytes.Repeat([]byte{fill}, peer.KeySize) }

// TestClusterKey: who shares a key talks, who does not is told why, on both sides.
func TestClusterKey(t *testing.T) {
	a, b := key('a'), key('b')
	for name, c := range map[string]struct {
		caller, server [][]byte
		code           string // "": they talk
		byPeer         bool
	}{
		"no keys":                             {nil, nil, "", false},
		"the same key":                        {[][]byte{a}, [][]byte{a}, "", false},
		"another key":                         {[][]byte{a}, [][]byte{b}, "wrong_key", true},
		"only the caller has a key":           {[][]byte{a}, nil, "no_key", false},
		"only the server has a key":           {nil, [][]byte{a}, "no_key", true},
		"rotation: the new one is known":      {[][]byte{a}, [][]byte{a, b}, "", false},
		"rotation: the new one is used":       {[][]byte{b, a}, [][]byte{a, b}, "", false},
		"rotation: the old one is gone":       {[][]byte{b}, [][]byte{b, a}, "", false},
		"rotation: too fast":                  {[][]byte{b, a}, [][]byte{a}, "wrong_key", true},
		"a key that begins as the other does": {[][]byte{append(bytes.Clone(a[:31]), 'x')}, [][]byte{a}, "wrong_key", true},
	} {
		t.Run(name, func(t *testing.T) {
			var logs lockedBuffer
			caller, server := pair(t, peer.Config{Keys: c.caller}, peer.Config{Keys: c.server, Logger: slog.New(slog.NewTextHandler(&logs, nil))}, nil)
			body, err := caller.Call(t.Context(), server.Advertised(), "echo", []byte("hello"))
			if c.code == "" {
				if err != nil || string(body) != "hello" {
					t.Fatalf("got %q, %v", body, err)
				}
				return
			}
			wantRefused(t, err, c.code, c.byPeer)
			if !strings.Contains(err.Error(), "--cluster-key-file") {
				t.Errorf("the error does not say what to do: %v", err)
			}
			until(t, "the other side says why", func() bool {
				return strings.Contains(logs.String(), "code="+c.code) && strings.Contains(logs.String(), "--cluster-key-file")
			})
		})
	}
}

func TestBadKeys(t *testing.T) {
	for _, keys := range [][][]byte{{[]byte("short")}, {key('a'), nil}} {
		cfg := peer.Config{Bind: "127.0.0.1:0", Self: func() peer.Hello { return hello("n", "127.0.0.1:1") }, Keys: keys}
		if p, err := peer.New(cfg); err == nil {
			p.Close()
			t.Errorf("keys %q: no error", keys)
		}
	}
}

// relay passes every connection on to target, as through makes it.
func relay(t *testing.T, target string, through func(in, out net.Conn) (net.Conn, net.Conn, error)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer in.Close()
				out, err := net.Dial("tcp", target)
				if err != nil {
					return
				}
				defer out.Close()
				deadline := time.Now().Add(10 * time.Second)
				if in.SetDeadline(deadline) != nil || out.SetDeadline(deadline) != nil {
					return
				}
				a, b, err := through(in, out)
				if err != nil {
					return
				}
				var both sync.WaitGroup
				pass := func(to, from net.Conn) {
					_, _ = io.Copy(to, from) // until either side ends
					to.Close()
				}
				both.Go(func() { pass(a, b) })
				both.Go(func() { pass(b, a) })
				both.Wait()
			})
		}
	})
	return l.Addr().String()
}

// TestNothingInTheClear: who listens on the wire sees neither names nor bodies.
func TestNothingInTheClear(t *testing.T) {
	for name, c := range map[string]struct {
		keys [][]byte
		seen bool
	}{"with a key": {[][]byte{key('a')}, false}, "without": {nil, true}} {
		t.Run(name, func(t *testing.T) {
			caller, server := pair(t, peer.Config{Keys: c.keys}, peer.Config{Keys: c.keys}, nil)
			var wire lockedBuffer
			addr := relay(t, server.Advertised(), func(in, out net.Conn) (net.Conn, net.Conn, error) {
				return &tapped{in, &wire}, &tapped{out, &wire}, nil
			})
			if _, err := caller.Call(t.Context(), addr, "echo", []byte("a secret body")); err != nil {
				t.Fatal(err)
			}
			for _, word := range []string{"a secret body", "server", "caller"} {
				if got := strings.Contains(wire.String(), word); got != c.seen {
					t.Errorf("%q on the wire: %v, want %v", word, got, c.seen)
				}
			}
		})
	}
}

type tapped struct {
	net.Conn
	wire *lockedBuffer
}

func (c *tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.wire.Write(b[:n])
	return n, err
}

// TestManInTheMiddle: who ends the encryption on both sides, and passes on what is
// said word for word, is found out, though he leaves the proofs as they are.
func TestManInTheMiddle(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
		MinVersion:   tls.VersionTLS13, NextProtos: []string{"muster-peer"}, InsecureSkipVerify: true,
	}
	keys := [][]byte{key('a')}
	caller, server := pair(t, peer.Config{Keys: keys}, peer.Config{Keys: keys}, nil)
	addr := relay(t, server.Advertised(), func(in, out net.Conn) (net.Conn, net.Conn, error) {
		a, b := tls.Server(in, cfg), tls.Client(out, cfg)
		if err := a.HandshakeContext(t.Context()); err != nil {
			return nil, nil, err
		}
		return a, b, b.HandshakeContext(t.Context())
	})
	_, err = caller.Call(t.Context(), addr, "echo", []byte("hello"))
	wantRefused(t, err, "wrong_key", true)
	if _, err := caller.Call(t.Context(), server.Advertised(), "echo", []byte("hello")); err != nil {
		t.Errorf("without him: %v", err)
	}
}
