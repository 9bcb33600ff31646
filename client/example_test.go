package client_test

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
)

// A service registers itself and stays registered until its context ends.
func Example() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute) // a signal's context, in a real one
	defer stop()

	c, err := client.New(client.Config{Addrs: []string{"127.0.0.1:7400", "127.0.0.1:7410", "127.0.0.1:7420"}})
	if err != nil {
		slog.Error("bad configuration", "err", err)
		return
	}
	defer c.Close()
	s, err := c.Register(ctx, muster.Instance{Service: "web", ID: "web-1", Address: "10.0.0.5", Port: 8080}, client.Drain(5*time.Second))
	if err != nil {
		slog.Error("not an instance", "err", err)
		return
	}
	for ch := range s.Changes() {
		slog.Info("registration", "state", ch.State, "err", ch.Err)
	}
}

// A caller follows a service and calls it by name.
func ExampleClient_HTTPClient() {
	ctx, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	c, err := client.New(client.Config{
		Addrs: []string{"127.0.0.1:7400"}, Zone: "eu-1a",
		Calls: client.Calls{AttemptTimeout: 2 * time.Second, Hedge: 50 * time.Millisecond},
	})
	if err != nil {
		slog.Error("bad configuration", "err", err)
		return
	}
	defer c.Close()
	w, err := c.Watch(ctx, "web")
	if err != nil {
		slog.Error("not a name", "err", err)
		return
	}
	for v := range w.Views(ctx) {
		fmt.Println(len(v.Instances), "instances")
		resp, err := c.HTTPClient().Get("http://web/users")
		if err != nil {
			slog.Error("calling web", "err", err)
			continue
		}
		resp.Body.Close()
	}
}
