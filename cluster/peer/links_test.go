package peer_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/muster-registry/muster/cluster/peer"
)

func TestBlocked(t *testing.T) {
	var none *peer.Links
	if none.Blocked("a", "b") {
		t.Error("no Links block")
	}
	l := &peer.Links{}
	want := func(step string, ab, ba, ac bool) {
		t.Helper()
		if got := [3]bool{l.Blocked("a", "b"), l.Blocked("b", "a"), l.Blocked("a", "c")}; got != [3]bool{ab, ba, ac} {
			t.Errorf("%s: a→b, b→a, a→c blocked: %v, want %v", step, got, [3]bool{ab, ba, ac})
		}
	}
	want("at first", false, false, false)
	l.Cut("a", "b")
	want("a→b cut", true, false, false)
	l.Refuse("b", "a")
	want("b→a refused", true, true, false)
	l.Heal("a", "b")
	want("a→b healed", false, true, false)
	l.HealAll()
	want("all healed", false, false, false)
	l.Isolate("b")
	want("b isolated", true, true, false)
	l.Heal("", "b")
	want("b hears", false, true, false)
	l.HealAll()
	l.Cut("", "")
	want("all cut", true, true, true)
}

// stream opens a raft connection between two ports over links.
func stream(t *testing.T, links *peer.Links) (a, b *node, near, far net.Conn) {
	t.Helper()
	a, b = pair(t, peer.Config{Links: links}, peer.Config{Links: links}, nil)
	near, err := a.StreamLayer().Dial(raft.ServerAddress(peer.At("server", b.Advertised())), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	far, err = b.StreamLayer().Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return a, b, near, far
}

func send(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("received %q, %v, want %q", b, err, want)
	}
}

func receiveNothing(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(30 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var b [16]byte
	if n, err := c.Read(b[:]); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("received %q, %v over a cut link, want a timeout", b[:n], err)
	}
}

func TestACutHasADirectionAndHeals(t *testing.T) {
	links := &peer.Links{}
	a, b, near, far := stream(t, links)
	send(t, near, "one")
	receive(t, far, "one")
	links.Cut(a.Advertised(), b.Advertised())
	send(t, near, "two")
	receiveNothing(t, far)
	send(t, far, "back")
	receive(t, near, "back")
	send(t, near, "three")
	receiveNothing(t, far)
	links.Heal(a.Advertised(), b.Advertised())
	receive(t, far, "twothree")

	// A read that is under way when the link is cut does not slip through, and
	// neither does the end of the connection.
	got := make(chan string, 1)
	if err := far.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() {
		all, _ := io.ReadAll(far)
		got <- string(all)
	}()
	links.Cut(a.Advertised(), b.Advertised())
	send(t, near, "late")
	near.Close()
	select {
	case s := <-got:
		t.Fatalf("%q and the end came over a cut link", s)
	case <-time.After(50 * time.Millisecond):
	}
	links.HealAll()
	if s := <-got; s != "late" {
		t.Errorf("after healing %q came, want what was written", s)
	}
}

func TestACutReadEndsWithItsConnection(t *testing.T) {
	links := &peer.Links{}
	a, b, near, far := stream(t, links)
	links.Cut(a.Advertised(), b.Advertised())
	send(t, near, "x")
	ended := make(chan error, 1)
	go func() {
		_, err := far.Read(make([]byte, 1))
		ended <- err
	}()
	far.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the read returned %v, want net.ErrClosed", err)
	}
}

func TestARefusedLinkIsReset(t *testing.T) {
	links := &peer.Links{}
	a, b, near, far := stream(t, links)
	ended := make(chan error, 2)
	for _, c := range []net.Conn{near, far} {
		go func() {
			_, err := c.Read(make([]byte, 1))
			ended <- err
		}()
	}
	links.Refuse(a.Advertised(), b.Advertised())
	for range 2 {
		if err := <-ended; err == nil {
			t.Error("a read succeeded on a refused link")
		}
	}
	for _, from := range []struct{ port, to *node }{{a, b}, {b, a}} {
		_, err := from.port.Call(t.Context(), from.to.Advertised(), "echo", nil)
		if !errors.Is(err, syscall.ECONNREFUSED) || !errors.Is(err, peer.ErrNotSent) {
			t.Errorf("got %v, want ECONNREFUSED and ErrNotSent", err)
		}
	}
	links.HealAll()
	if _, err := a.Call(t.Context(), b.Advertised(), "echo", nil); err != nil {
		t.Errorf("after healing: %v", err)
	}
}

func TestCallsOverACutLink(t *testing.T) {
	links := &peer.Links{}
	a, b := pair(t, peer.Config{Links: links}, peer.Config{Links: links}, nil)
	// A dial into a black hole takes the caller's patience, and nothing is sent.
	links.Cut(b.Advertised(), a.Advertised())
	_, err := a.Call(withTimeout(t, 50*time.Millisecond), b.Advertised(), "echo", nil)
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, peer.ErrNotSent) {
		t.Errorf("got %v, want a timeout and ErrNotSent", err)
	}
	links.HealAll()
	if _, err := a.Call(t.Context(), b.Advertised(), "echo", nil); err != nil {
		t.Fatal(err)
	}
	// Over an open connection the call is sent.
	links.Cut(a.Advertised(), b.Advertised())
	_, err = a.Call(withTimeout(t, 50*time.Millisecond), b.Advertised(), "echo", nil)
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, peer.ErrNotSent) {
		t.Errorf("got %v, want a timeout of a call that was sent", err)
	}
	// A silent connection is given up within a few seconds, also by a patient
	// caller.
	start := time.Now()
	_, err = a.Call(withTimeout(t, 20*time.Second), b.Advertised(), "echo", nil)
	if d := time.Since(start); err == nil || errors.Is(err, context.DeadlineExceeded) || d > 10*time.Second {
		t.Errorf("a patient caller got %v after %s, want the loss of the connection", err, d)
	}
	links.HealAll()
	if _, err := a.Call(withTimeout(t, 5*time.Second), b.Advertised(), "echo", nil); err != nil {
		t.Errorf("after healing: %v", err)
	}
}
