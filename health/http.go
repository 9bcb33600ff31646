package health

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/muster-registry/muster"
)

const (
	// maxBody is how much of a body is read, and maxHead of all that comes before.
	maxBody = 4 << 10
	maxHead = 32 << 10
	// maxInformational is how many answers of class 1xx may come first.
	maxInformational = 5

	identityHeader = "Muster-Instance"
	userAgent      = "Muster-Health/1"
)

// probeHTTP passes where the answer has an expected status, holds the text it is
// to hold, and does not come from another instance. Every probe makes its own
// connection, by hand rather than through http.Client: there is no redirect to
// follow, no proxy to be sent to and no cookie to keep. Certificates are not
// verified: a check asks whether an instance works, and clients verify whom they
// talk to.
func probeHTTP(ctx context.Context, a *attempt) Result {
	conn, err := a.dial(ctx)
	if err != nil {
		return failedBy(err, muster.CheckUnreachable)
	}
	defer func() { _ = conn.Close() }() // the answer has been judged
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return failedBy(err, muster.CheckUnreachable)
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if a.check.TLS {
		secured := tls.Client(conn, insecureTLS(a.inst.Address))
		if err := secured.HandshakeContext(ctx); err != nil {
			return failedBy(err, muster.CheckTLS)
		}
		conn = secured
	}
	resp, err := a.ask(ctx, conn)
	if err != nil {
		return failedBy(err, muster.CheckProtocol)
	}
	defer func() { _ = resp.Body.Close() }()
	return a.judge(resp)
}

// insecureTLS asks for no proof of who the target is.
func insecureTLS(host string) *tls.Config {
	c := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
	if net.ParseIP(host) == nil {
		c.ServerName = host
	}
	return c
}

// ask sends the request and reads the head of the answer.
func (a *attempt) ask(ctx context.Context, conn net.Conn) (*http.Response, error) {
	u, err := url.ParseRequestURI(a.check.Path)
	if err != nil {
		return nil, fmt.Errorf("reading the path: %w", err)
	}
	u.Scheme, u.Host, u.User = "http", a.address(), nil
	req, err := http.NewRequestWithContext(ctx, a.check.Method, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	req.URL, req.Close = u, true
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept", "*/*")
	if err := req.Write(conn); err != nil {
		return nil, fmt.Errorf("sending the request: %w", err)
	}
	r := bufio.NewReader(io.LimitReader(conn, maxHead+maxBody))
	for range maxInformational {
		resp, err := http.ReadResponse(r, req)
		if err != nil {
			return nil, fmt.Errorf("reading the answer: %w", err)
		}
		if resp.StatusCode >= http.StatusOK || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
	}
	return nil, errors.New("the answer does not begin")
}

func (a *attempt) judge(resp *http.Response) Result {
	status := fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	if r, ok := impostor(a.inst.ID, resp.Header.Values(identityHeader)); !ok {
		return r
	}
	if low, high, err := muster.ParseExpect(a.check.Expect); err != nil || resp.StatusCode < low || resp.StatusCode > high {
		return failed(muster.CheckHTTPStatus, status+", not "+a.check.Expect)
	}
	if a.check.Contains == "" {
		return Result{Passed: true, Output: status}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return failedBy(err, muster.CheckProtocol)
	}
	if !bytes.Contains(body, []byte(a.check.Contains)) {
		return failed(muster.CheckBody, status+", without the text it is to hold")
	}
	return Result{Passed: true, Output: status}
}

// impostor reports whether what says who it is is another than id: a recycled
// address must not pass for the instance that had it before. Whoever says nothing
// is believed.
func impostor(id string, says []string) (Result, bool) {
	for _, other := range says {
		if other == id {
			continue
		}
		if muster.CheckID(other) != nil {
			other = "something else"
		}
		return failed(muster.CheckIdentityMismatch, "the target says it is "+other), false
	}
	return Result{}, true
}
