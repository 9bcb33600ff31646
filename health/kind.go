package health

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/muster-registry/muster"
)

// Result is what one probe found.
type Result struct {
	Passed bool
	// Skipped says that the probe says nothing of its target: it was held back by
	// a limit, or this node itself was standing still.
	Skipped bool
	Cause   muster.CheckCause
	// Output is at most muster.MaxCheckOutputLen printable bytes, and holds nothing
	// of what the target answered but its status.
	Output  string
	Latency time.Duration
}

// kind is one kind of check: a row of the table of kinds, and a file.
type kind struct {
	name  muster.CheckType
	probe func(context.Context, *attempt) Result
}

// kinds is the table.
var kinds = [...]kind{
	{muster.CheckHTTP, probeHTTP},
	{muster.CheckTCP, probeTCP},
	{muster.CheckGRPC, probeGRPC},
	{muster.CheckService, probeService},
}

func kindOf(t muster.CheckType) *kind {
	for n := range kinds {
		if kinds[n].name == t {
			return &kinds[n]
		}
	}
	return nil
}

// attempt is one probe to be made.
type attempt struct {
	inst     *muster.Instance
	check    *muster.Check
	guard    *Guard
	admit    func(netip.Addr) error
	routable func(muster.ServiceKey) int
}

// address is the target: the instance's own, at the check's port.
func (a *attempt) address() string {
	port := a.check.Port
	if port == 0 {
		port = a.inst.Port
	}
	return net.JoinHostPort(a.inst.Address, strconv.Itoa(port))
}

func (a *attempt) dial(ctx context.Context) (net.Conn, error) {
	return a.guard.dial(ctx, a.address(), a.admit)
}

// stallSlack is by how much a probe may outlast its timeout. One that takes longer
// tells of this node, which was stopped or starved meanwhile.
const stallSlack = time.Second

// run makes the probe, within the check's timeout.
func (a *attempt) run(ctx context.Context) Result {
	k := kindOf(a.check.Type)
	if k == nil {
		return Result{Skipped: true} // of a newer version
	}
	timeout := time.Duration(a.check.Timeout)
	pctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	began := time.Now()
	r := k.probe(pctx, a)
	r.Latency = time.Since(began)
	if ctx.Err() != nil || !r.Passed && r.Latency > timeout+stallSlack {
		r.Skipped = true
	}
	r.Output = clean(r.Output)
	return r
}

func failed(cause muster.CheckCause, output string) Result {
	return Result{Cause: cause, Output: output}
}

// failedBy is the result of a probe that ended with err, which is of the fallback
// cause where nothing more is known. The text of err is shown only where no part
// of it can come from the target.
func failedBy(err error, fallback muster.CheckCause) Result {
	dns, isDNS := errors.AsType[*net.DNSError](err)
	op, isOp := errors.AsType[*net.OpError](err)
	netErr, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, errThrottled):
		return Result{Skipped: true}
	case errors.Is(err, errForbidden):
		return failed(muster.CheckForbidden, err.Error())
	case isDNS && !dns.IsTimeout:
		return failed(muster.CheckDNS, dns.Name+": "+dns.Err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), isNet && netErr.Timeout():
		return failed(muster.CheckTimeout, "no answer in time")
	case errors.Is(err, syscall.ECONNREFUSED):
		return failed(muster.CheckRefused, err.Error())
	case isOp && op.Op == "dial":
		return failed(fallback, err.Error())
	case fallback == muster.CheckTLS:
		return failed(fallback, "the TLS handshake failed")
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return failed(fallback, "the target ended the connection")
	}
	return failed(fallback, "the answer is not one of the protocol")
}

// clean makes s fit to be shown: printable, one line, not too long.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '?'
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)
	for len(s) > muster.MaxCheckOutputLen {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
