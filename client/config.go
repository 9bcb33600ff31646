package client

import (
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster"
)

// The defaults of a Config, and of what it does not let one choose; the table in
// the package comment says what each is for.
const (
	DefaultAttemptTimeout = 3 * time.Second
	DefaultTimeout        = 10 * time.Second
	DefaultStopTimeout    = 5 * time.Second
	DefaultHoldExpired    = time.Minute
	DefaultCallAttempts   = 3
)

// Config is what a Client is made from. Only Addrs is needed.
type Config struct {
	// Addrs are the API addresses of the nodes, "10.0.0.1:7400" or
	// "https://registry-1:7400". One is enough to begin with; with all of them a node
	// may fail.
	Addrs []string
	// Namespace is that of calls which name none; "" is muster.DefaultNamespace.
	Namespace string
	// Zone is where this process runs; picks prefer it. "" prefers none.
	Zone string
	// AttemptTimeout is how long one node may take to answer before the next is
	// asked, 100ms to 1m; 0 is DefaultAttemptTimeout.
	AttemptTimeout time.Duration
	// Timeout bounds a call whose context has no deadline; 0 is DefaultTimeout.
	Timeout time.Duration
	// StopTimeout bounds how long the end of a session may take beside its drain, 0
	// is DefaultStopTimeout.
	StopTimeout time.Duration
	// SnapshotDir is a directory for the last known views, which are shown, marked as
	// old, when a watch starts and no node answers. It is made if it is not there;
	// "" keeps none. Two processes must not share one.
	SnapshotDir string
	// HoldExpired is how long a watch goes on showing the last instances of a service
	// all of whose leases ran out; see Watch. 0 is DefaultHoldExpired, negative does
	// not hold them.
	HoldExpired time.Duration
	// UserAgent is what every request to a node says of this program, at most 256
	// printable ASCII characters; "" is muster-client/ and the version of this module.
	UserAgent string
	// Transport carries the requests to the nodes; nil is one of the client's own,
	// whose idle connections Close closes, and which goes by the proxy of the
	// environment. NewTransport makes one with a CA of yours.
	Transport http.RoundTripper
	// Calls are the calls to services by name, see HTTPClient.
	Calls Calls
	// Logger is told of nodes that fail and come back, and of sessions that are lost;
	// nil discards.
	Logger *slog.Logger
	// Registerer takes the metrics of the balancer; nil for none.
	Registerer prometheus.Registerer
}

// withDefaults fills in what is not given.
func (c Config) withDefaults() Config {
	set := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	set(&c.AttemptTimeout, DefaultAttemptTimeout)
	set(&c.Timeout, DefaultTimeout)
	set(&c.StopTimeout, DefaultStopTimeout)
	set(&c.HoldExpired, DefaultHoldExpired)
	if c.Calls.Attempts == 0 {
		c.Calls.Attempts = DefaultCallAttempts
	}
	if c.UserAgent == "" {
		c.UserAgent = "muster-client/" + moduleVersion()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// check refuses what cannot work, and brings addresses and names into their
// canonical form.
func (c *Config) check() error {
	if len(c.Addrs) == 0 {
		return badConfig("Addrs names no node").WithHint("give the API address of at least one, such as 127.0.0.1:7400")
	}
	addrs := make([]string, 0, len(c.Addrs))
	for _, a := range c.Addrs {
		base, err := baseURL(a)
		if err != nil {
			return err
		}
		addrs = append(addrs, base)
	}
	c.Addrs = addrs
	var err error
	if c.Namespace, err = muster.CleanNamespace(c.Namespace); err != nil {
		return err
	}
	for _, b := range []struct {
		name      string
		d         time.Duration
		low, high time.Duration
	}{
		{"AttemptTimeout", c.AttemptTimeout, 100 * time.Millisecond, time.Minute},
		{"Timeout", c.Timeout, 100 * time.Millisecond, time.Hour},
		{"StopTimeout", c.StopTimeout, 100 * time.Millisecond, time.Hour},
	} {
		if b.d < b.low || b.d > b.high {
			return badConfig("%s %s is not between %s and %s", b.name, b.d, b.low, b.high)
		}
	}
	if len(c.UserAgent) > maxUserAgent || strings.ContainsFunc(c.UserAgent, func(r rune) bool { return r < ' ' || r > '~' }) {
		return badConfig("UserAgent is longer than %d characters, or not all of them are printable ASCII", maxUserAgent)
	}
	return c.Calls.check()
}

const maxUserAgent = 256

// moduleVersion is the version of this module in the program it is part of; "devel"
// where the program was built from a working copy.
func moduleVersion() string {
	const path = "github.com/muster-registry/muster"
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	for _, m := range append([]*debug.Module{&b.Main}, b.Deps...) {
		if m.Path == path && m.Version != "" && m.Version != "(devel)" {
			return m.Version
		}
	}
	return "devel"
}

// baseURL reads the address of a node.
func baseURL(addr string) (string, error) {
	s := strings.TrimSpace(addr)
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" ||
		u.RawQuery != "" || u.User != nil || u.Fragment != "" {
		return "", muster.Errorf(muster.CodeInvalidAddress, "%q is not the address of a node", addr).
			WithHint("it looks like http://10.0.0.1:7400")
	}
	return u.Scheme + "://" + u.Host, nil
}

func badConfig(format string, args ...any) *muster.Error {
	return muster.Errorf(muster.CodeConflictingField, "client: "+format, args...)
}
