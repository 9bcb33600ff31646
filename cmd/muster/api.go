package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/muster-registry/muster/problem"
)

// api speaks to the nodes named by --addr. A node that cannot be reached is
// passed over for the next; an answer, also a refusal, is an answer.
type api struct {
	addrs []string
	http  *http.Client
}

func newAPI(g *global) (*api, error) {
	transport, err := newTransport(g.caFile)
	if err != nil {
		return nil, err
	}
	a := &api{http: &http.Client{Timeout: 70 * time.Second, Transport: transport}}
	for _, s := range g.addrs {
		if !strings.Contains(s, "://") {
			s = "http://" + s
		}
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" {
			return nil, usageError("--addr %q is not the address of a node; it looks like http://127.0.0.1:7400", s)
		}
		a.addrs = append(a.addrs, strings.TrimSuffix(s, "/"))
	}
	if len(a.addrs) == 0 {
		return nil, usageError("--addr names no node")
	}
	return a, nil
}

// newTransport trusts the authorities of the system, or those of a file.
func newTransport(caFile string) (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	if caFile == "" {
		return t, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, configError("--ca-file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, configError("--ca-file %s holds no certificate in PEM", caFile)
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return t, nil
}

// call sends one request and decodes the answer into out, unless that is nil. It
// returns the answer's header.
func (a *api) call(ctx context.Context, method, path string, query url.Values, in, out any) (http.Header, error) {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, fmt.Errorf("encoding the request: %w", err)
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	resp, err := a.ask(ctx, a.http, "it is safe to repeat", func(addr string) (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, method, addr+path, bytes.NewReader(body))
		if err == nil && body != nil {
			req.Header.Set("Content-Type", "application/json")
		}
		return req, err
	})
	if err != nil {
		return nil, err
	}
	return resp.Header, readAnswer(resp, out)
}

// ask sends one request, which build makes for the address of a node, to the first
// node that can be reached; whatever that answers is the answer. After a write that may
// have happened no other is asked, and advice is what the user is told.
func (a *api) ask(ctx context.Context, client *http.Client, advice string, build func(addr string) (*http.Request, error)) (*http.Response, error) {
	var failures []error
	for _, addr := range a.addrs {
		req, err := build(addr)
		if err != nil {
			return nil, fmt.Errorf("making the request: %w", err)
		}
		req.Header.Set("User-Agent", "muster/"+version)
		resp, err := client.Do(req)
		switch {
		case err == nil:
			return resp, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case req.Method != http.MethodGet && !notSent(err):
			return nil, fmt.Errorf("%w (the write may have happened: %s)", err, advice)
		}
		failures = append(failures, err)
	}
	return nil, noAnswer(failures)
}

// noAnswer is the error where no node could be reached.
func noAnswer(failures []error) error {
	return fmt.Errorf("no node answered: %w\n  is it running? --addr or MUSTER_ADDR says where", errors.Join(failures...))
}

func readAnswer(resp *http.Response, out any) error {
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 256<<20))
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if resp.StatusCode >= 400 {
		return problem.Decode(resp.StatusCode, b)
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	if raw, ok := out.(*json.RawMessage); ok {
		*raw = b
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("the answer is not what a Muster node sends: %w", err)
	}
	return nil
}

// notSent reports whether a request surely never reached a node: the connection
// was not made.
func notSent(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

func servicePath(service string, more ...string) string {
	p := "/v1/services/" + url.PathEscape(service)
	for _, m := range more {
		p += "/" + m
	}
	return p
}

func instancePath(service, id string, more ...string) string {
	return servicePath(service, append([]string{"instances", url.PathEscape(id)}, more...)...)
}

// query makes parameters of pairs; a pair with an empty value is left out.
func query(pairs ...string) url.Values {
	v := url.Values{}
	for n := 0; n+1 < len(pairs); n += 2 {
		if pairs[n+1] != "" {
			v.Set(pairs[n], pairs[n+1])
		}
	}
	return v
}
