package client

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
)

// Client speaks to a registry. It is safe for concurrent use; a process needs one.
type Client struct {
	cfg      Config
	nodes    *nodes
	http     *http.Client
	own      *http.Transport // nil where the Config brought one
	budget   budget
	seen     seen
	keeper   *keeper
	feeds    feeds
	calls    *caller
	balancer *balancer.Balancer
	narrow   narrower

	mu      sync.Mutex
	closed  bool                          // guarded by mu
	cancels map[uint64]context.CancelFunc // guarded by mu: of what runs
	last    uint64                        // guarded by mu: key in cancels
	running sync.WaitGroup                // Add is called under mu
}

// New makes a Client. It starts nothing and speaks to nobody: goroutines begin with
// the first session or watch and end with the last. The error is a *muster.Error,
// or that of a registerer that refuses the metrics.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, nodes: newNodes(cfg.Addrs, cfg.Logger), cancels: map[uint64]context.CancelFunc{}}
	var err error
	if cfg.Calls.By.Where != nil {
		if _, err = c.narrow.filter(cfg.Calls.By.Where); err != nil {
			return nil, err
		}
	}
	if c.balancer, err = balancer.New(balancer.Config{Logger: cfg.Logger, Registerer: cfg.Registerer}); err != nil {
		return nil, err
	}
	c.keeper, c.calls = newKeeper(c), newCaller(c)
	transport := cfg.Transport
	if transport == nil {
		c.own = NewTransport(nil)
		c.own.Proxy = http.ProxyFromEnvironment
		transport = c.own
	}
	c.http = &http.Client{
		Transport:     traced(transport),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// dialFor is how long a connection may take to be made.
const dialFor = 3 * time.Second

// NewTransport makes a transport such as a client has of its own, whose connections
// are kept, and given up when the other end is gone, for Config.Transport or
// Calls.Transport: with a CA of yours, or a certificate to show. nil is Go's own
// TLS. It goes by no proxy. Whoever gives it to a client closes its idle connections
// after Close.
func NewTransport(t *tls.Config) *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialFor, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:        t,
		TLSHandshakeTimeout:    dialFor,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        50 * time.Second, // less than a node's own minute
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
		// A connection of HTTP/2 outlives the requests that time out on it.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: dialFor},
	}
}

// Close ends all sessions (drained and deregistered as they were told to) and
// watches, and returns when their goroutines have. Calls by name are refused from
// then on. It may be called again.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	for _, cancel := range c.cancels {
		cancel()
	}
	c.mu.Unlock()
	c.calls.close()
	c.running.Wait()
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
}

// Zone is the Config's.
func (c *Client) Zone() string { return c.cfg.Zone }

// start runs f in a goroutine whose context ends with ctx or when the client is
// closed.
func (c *Client) start(ctx context.Context, f func(context.Context)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return muster.Errorf(muster.CodeShuttingDown, "the client is closed")
	}
	ctx, cancel := context.WithCancel(ctx)
	c.last++
	id := c.last
	c.cancels[id] = cancel
	c.running.Go(func() {
		defer func() {
			cancel()
			c.mu.Lock()
			delete(c.cancels, id)
			c.mu.Unlock()
		}()
		f(ctx)
	})
	return nil
}
