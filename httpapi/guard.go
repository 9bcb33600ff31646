package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"unicode/utf8"

	"github.com/muster-registry/muster"
)

// admit refuses a request for what can be told without knowing its route. The
// path comes first: a path that two readers read differently must reach no rule.
func (s *Server) admit(c *call) error {
	if len(c.r.RequestURI) > muster.MaxURIBytes {
		return muster.Errorf(muster.CodeURITooLong, "path and query are longer than %d bytes", muster.MaxURIBytes)
	}
	if err := checkPath(c.r); err != nil {
		return err
	}
	if len(c.r.TransferEncoding) > 0 {
		if err := c.checkFraming(); err != nil {
			return err
		}
	}
	if s.hosts != nil && !s.hosts.allow(c.r.Host) {
		return muster.Errorf(muster.CodeUnknownHost, "this node does not answer for the host %q", clip(c.r.Host)).
			WithHint("it listens on loopback only; name other hosts it may be called by in its configuration")
	}
	if err := s.crossOrigin.Check(c.r); err != nil {
		return muster.Errorf(muster.CodeForbidden, "a web page of another origin may not write here")
	}
	return nil
}

// checkPath refuses a path that does not mean the same to everybody: an encoded
// slash, backslash or dot, an empty or dot segment, a control character.
func checkPath(r *http.Request) error {
	path := r.URL.Path
	why := ""
	switch {
	case path == "" || path[0] != '/':
		why = "does not begin with a slash"
	case !utf8.ValidString(path):
		why = "is not UTF-8"
	default:
		for i := range len(path) {
			switch c := path[i]; {
			case c < 0x20 || c == 0x7f || c == '\\':
				why = "holds a control character or a backslash"
			case c == '/' && i+1 < len(path) && (path[i+1] == '/' || path[i+1] == '.' && dots(path[i+1:])):
				why = "holds an empty segment or a segment of dots"
			}
		}
	}
	// RawPath is set where the path was not encoded in the usual way.
	for raw := r.URL.RawPath; why == "" && raw != ""; {
		i := strings.IndexByte(raw, '%')
		if i < 0 || i+3 > len(raw) {
			break
		}
		switch strings.ToLower(raw[i+1 : i+3]) {
		case "2f", "5c", "2e":
			why = "holds an encoded slash, backslash or dot"
		}
		raw = raw[i+3:]
	}
	if why == "" {
		return nil
	}
	return muster.Errorf(muster.CodeInvalidPath, "the path %s", why)
}

// dots reports whether s begins with a segment "." or "..".
func dots(s string) bool {
	seg, _, _ := strings.Cut(s, "/")
	return seg == "." || seg == ".."
}

// hostList is the Host values a node on loopback answers to: those that mean this
// machine and cannot be made to by a name server (DNS rebinding), and the names
// it was given.
type hostList map[string]bool

func newHostList(names []string) hostList {
	l := hostList{"localhost": true}
	for _, n := range names {
		l[foldHost(n)] = true
	}
	return l
}

func foldHost(h string) string { return strings.ToLower(strings.TrimSuffix(h, ".")) }

// allow reports whether a Host header, with or without a port, is on the list. A
// request of HTTP/1.0 may have none; no browser sends it.
func (l hostList) allow(host string) bool {
	if host == "" || l[host] {
		return true
	}
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	} else {
		name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip.Unmap().IsLoopback()
	}
	name = foldHost(name)
	return l[name] || strings.HasSuffix(name, ".localhost")
}
