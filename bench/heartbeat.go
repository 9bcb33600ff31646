package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/muster-registry/muster"
)

// runHeartbeat renews single leases.
func runHeartbeat(ctx context.Context, w *world) ([]Result, error) {
	keys, err := w.leased(ctx)
	if err != nil {
		return nil, err
	}
	paths := make([]string, len(keys))
	for n, k := range keys {
		paths[n] = w.path(k.Service, k.ID, "/heartbeat")
	}
	var seq atomic.Int64
	l := Load{Clients: w.cfg.Clients, Do: func(ctx context.Context, client, _ int) (int, error) {
		n := int(seq.Add(1)) % len(paths)
		_, err := send(ctx, w.client, "PUT", w.cluster.Nodes[client%len(w.cluster.Nodes)].URL+paths[n], "", 200)
		return 1, err
	}}
	floor, meter, err := w.likeHTTP(ctx, "PUT", w.cluster.Nodes[0].URL+paths[0], w.cfg.Clients)
	if err != nil {
		return nil, err
	}
	r, err := w.measure(ctx, l, floor, "net/http", meter)
	return []Result{r}, err
}

// runHeartbeats renews leases by batches, as a client with many instances does.
func runHeartbeats(ctx context.Context, w *world) ([]Result, error) {
	keys, err := w.leased(ctx)
	if err != nil {
		return nil, err
	}
	var bodies []string
	for first := 0; first < len(keys); first += muster.MaxHeartbeatItems {
		text, err := beats(keys[first:min(first+muster.MaxHeartbeatItems, len(keys))])
		if err != nil {
			return nil, err
		}
		bodies = append(bodies, text)
	}
	size := min(len(keys), muster.MaxHeartbeatItems)
	l := Load{Clients: min(w.cfg.Clients, 16), Do: func(ctx context.Context, client, call int) (int, error) {
		return size, w.beat(ctx, client, bodies[(client+call)%len(bodies)])
	}}
	r, err := w.measure(ctx, l, Load{}, "", nil)
	return []Result{r}, err
}

// beats is the body of one batch of heartbeats.
func beats(keys []muster.InstanceKey) (string, error) {
	type named struct {
		Namespace string `json:"namespace"`
		Service   string `json:"service"`
		ID        string `json:"id"`
	}
	all := make([]named, len(keys))
	for n, k := range keys {
		all[n] = named{k.Namespace, k.Service, k.ID}
	}
	text, err := json.Marshal(map[string]any{"instances": all})
	if err != nil {
		return "", fmt.Errorf("encoding heartbeats: %w", err)
	}
	return string(text), nil
}

// beat sends one batch to one of the nodes and wants all of it renewed.
func (w *world) beat(ctx context.Context, client int, body string) error {
	text, err := send(ctx, w.client, "POST", w.cluster.Nodes[client%len(w.cluster.Nodes)].URL+"/v1/heartbeats", body, 200)
	if err == nil && !strings.Contains(text, `"unknown":[]`) {
		err = fmt.Errorf("a batch of heartbeats was not all renewed: %.300s", text)
	}
	return err
}
