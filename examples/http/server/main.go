// Command server is a web service that keeps itself registered as "greetings".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
	"github.com/muster-registry/muster/tracing"
)

func main() {
	registry := flag.String("registry", "127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420", "API addresses of the registry's nodes")
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on; port 0 is any")
	id := flag.String("id", "greetings-1", "id of this instance")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *registry, *listen, *id); err != nil {
		slog.Error("the server ends", "err", err)
		os.Exit(1)
	}
}

// serve answers requests until ctx ends, and none of them is cut off.
func serve(ctx context.Context, registry, listen, id string) error {
	// Where the OTEL_* variables ask for traces.
	_, stopTraces, err := tracing.Start(ctx, tracing.Config{Service: "greetings"})
	if err != nil {
		return fmt.Errorf("traces: %w", err)
	}
	defer stopTraces()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	at := l.Addr().(*net.TCPAddr)

	// These three lines are all that registering takes. The instance is deregistered
	// when ctx ends, after a second in which callers learn that it goes.
	c, err := client.New(client.Config{Addrs: strings.Split(registry, ",")})
	if err != nil {
		return fmt.Errorf("the registry: %w", err)
	}
	defer c.Close()
	session, err := c.Register(ctx, muster.Instance{Service: "greetings", ID: id, Address: at.IP.String(), Port: at.Port}, client.Drain(time.Second))
	if err != nil {
		return fmt.Errorf("registering: %w", err)
	}

	server := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "hello from %s\n", id)
		}),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	slog.Info("serving", "id", id, "address", at.String())
	select {
	case err := <-served:
		return fmt.Errorf("serving: %w", err)
	case <-session.Done(): // first out of the registry, then out of work
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(end); err != nil {
		return fmt.Errorf("finishing what was begun: %w", err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}
