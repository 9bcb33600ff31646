// Command caller calls the service "greetings" by its name, whichever instances are
// there.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/muster-registry/muster/client"
	"github.com/muster-registry/muster/tracing"
)

func main() {
	registry := flag.String("registry", "127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420", "API addresses of the registry's nodes")
	every := flag.Duration("every", 500*time.Millisecond, "time between two calls")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := call(ctx, *registry, *every); err != nil {
		slog.Error("the caller ends", "err", err)
		os.Exit(1)
	}
}

// call calls until ctx ends. An instance that dies is no reason for a call to fail:
// another one is asked.
func call(ctx context.Context, registry string, every time.Duration) error {
	// Where the OTEL_* variables ask for traces.
	_, stopTraces, err := tracing.Start(ctx, tracing.Config{Service: "greetings-caller"})
	if err != nil {
		return fmt.Errorf("traces: %w", err)
	}
	defer stopTraces()
	c, err := client.New(client.Config{Addrs: strings.Split(registry, ",")})
	if err != nil {
		return fmt.Errorf("the registry: %w", err)
	}
	defer c.Close()
	web := c.HTTPClient()
	web.Timeout = 10 * time.Second

	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		text, err := get(ctx, web, "http://greetings/")
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			fmt.Println("FAILED:", err)
		default:
			fmt.Print(text)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func get(ctx context.Context, web *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := web.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the answer is %s", resp.Status)
	}
	return string(b), err
}
