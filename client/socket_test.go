package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
)

// TestTLS: a registry behind a CA of its own, over HTTP/2.
func TestTLS(t *testing.T) {
	r := newRegistry()
	protocols := make(chan string, 100)
	node := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		select {
		case protocols <- req.Proto:
		default:
		}
		r.ServeHTTP(w, req)
	}))
	node.EnableHTTP2 = true
	node.StartTLS()
	defer node.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	stranger, err := client.New(client.Config{Addrs: []string{node.URL}})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	short, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	if _, err := stranger.Version(short); !errors.Is(err, client.CodeUnreachable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without the CA: %v", err)
	}

	roots := x509.NewCertPool()
	roots.AddCert(node.Certificate())
	transport := client.NewTransport(&tls.Config{RootCAs: roots})
	defer transport.CloseIdleConnections()
	c, err := client.New(client.Config{Addrs: []string{node.URL}, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.Register(ctx, web("a", 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Await(ctx); err != nil {
		t.Fatal(err)
	}
	w, err := c.Watch(ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := w.Await(ctx); err != nil || ids(v) != "a" {
		t.Errorf("%v %v", v, err)
	}
	for len(protocols) > 0 {
		if p := <-protocols; p != "HTTP/2.0" {
			t.Errorf("a request came by %s", p)
		}
	}
}

// TestRealSockets: the client's own transports, with a node that accepts and never
// answers, one that is not there, and one that works.
func TestRealSockets(t *testing.T) {
	hole, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts; the kernel does
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	r := newRegistry()
	node := httptest.NewServer(r)
	defer node.Close()
	answers := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("hello")) }))
	defer answers.Close()

	c, err := client.New(client.Config{
		Addrs:          []string{hole.Addr().String(), gone.Addr().String(), node.URL},
		AttemptTimeout: 200 * time.Millisecond,
		Calls:          client.Calls{AttemptTimeout: 30 * time.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	at := answers.Listener.Addr().(*net.TCPAddr)
	s, err := c.Register(ctx, muster.Instance{Service: "web", ID: "a", Address: "127.0.0.1", Port: at.Port})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Await(ctx); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		status, body, err := get(ctx, c.HTTPClient(), "GET", "http://web/", "")
		if err != nil || status != 200 || body != "hello" {
			t.Fatalf("%d %q %v", status, body, err)
		}
	}
	w, err := c.Watch(ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	v, err := w.Await(ctx)
	if err != nil || ids(v) != "a" {
		t.Fatalf("%v %v", v, err)
	}
	r.put(lasting("web", "b"))
	for ids(v) != "a b" {
		if v, err = w.Next(ctx, v); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	if r.find("web", "a") != nil {
		t.Error("it is still registered")
	}
}
