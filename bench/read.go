package bench

import "context"

// runRead reads one service of one node.
func runRead(ctx context.Context, w *world, size int, consistency, role string) ([]Result, error) {
	service, err := w.service(ctx, "read", size, long)
	if err != nil {
		return nil, err
	}
	node, err := w.role(ctx, role, 0)
	if err != nil {
		return nil, err
	}
	url := node.URL + w.path(service, "", "") + "&consistency=" + consistency
	r, err := w.asking(ctx, []string{url})
	return []Result{r}, err
}

// runPick picks one of a service, by any node.
func runPick(ctx context.Context, w *world, size int) ([]Result, error) {
	service, err := w.service(ctx, "read", size, long)
	if err != nil {
		return nil, err
	}
	var urls []string
	for _, n := range w.cluster.Nodes {
		urls = append(urls, n.URL+w.path(service, "", "/pick"))
	}
	r, err := w.asking(ctx, urls)
	return []Result{r}, err
}

// asking measures a GET of urls, of all by different clients, against a floor that
// gives the answer of the first.
func (w *world) asking(ctx context.Context, urls []string) (Result, error) {
	l := Load{Clients: w.cfg.Clients, Do: func(ctx context.Context, client, _ int) (int, error) {
		_, err := send(ctx, w.client, "GET", urls[client%len(urls)], "", 200)
		return 1, err
	}}
	floor, meter, err := w.likeHTTP(ctx, "GET", urls[0], w.cfg.Clients)
	if err != nil {
		return Result{}, err
	}
	return w.measure(ctx, l, floor, "net/http", meter)
}
