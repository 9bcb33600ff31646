package node

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/cluster/peer"
	"github.com/muster-registry/muster/problem"
)

// Secrets says which files hold the secrets of a node; empty: none.
type Secrets struct {
	// ClusterKeyFile holds the cluster's keys, one a line in base64: the first is
	// used, any is accepted. Empty lines and those that begin with # are skipped.
	ClusterKeyFile string
	// TLSCertFile and TLSKeyFile hold, in PEM, the certificate of the API port and
	// its key. They are read again when they change.
	TLSCertFile, TLSKeyFile string
}

// readClusterKeys reads a file of keys.
func readClusterKeys(name string, log *slog.Logger) ([][]byte, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, configError("--cluster-key-file: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().Perm()&0o004 != 0 {
		log.Warn("the cluster key can be read by everybody on this machine: chmod 600", "file", name)
	}
	var keys [][]byte
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(key) != peer.KeySize {
			return nil, configError("--cluster-key-file %s: line %d is not %d bytes in base64; \"muster keygen\" makes one", name, n, peer.KeySize)
		}
		keys = append(keys, key)
	}
	if err := lines.Err(); err != nil {
		return nil, configError("--cluster-key-file: %w", err)
	}
	if len(keys) == 0 {
		return nil, configError("--cluster-key-file %s holds no key; \"muster keygen\" makes one", name)
	}
	return keys, nil
}

// certLook is how often at most the files of the certificate are looked at.
const certLook = time.Second

// certificate is that of the API port. It is read again when its files change; one
// that cannot be read leaves the one before in force.
type certificate struct {
	cert, key string
	log       *slog.Logger
	failures  prometheus.Counter

	mu     sync.Mutex
	now    *tls.Certificate // guarded by mu
	stamp  string           // guarded by mu: of the files it was read from, or failed to be
	looked time.Time        // guarded by mu
}

// newCertificate reads the certificate; nil where there is to be none.
func newCertificate(s Secrets, log *slog.Logger, m *metrics) (*certificate, error) {
	switch {
	case s.TLSCertFile == "" && s.TLSKeyFile == "":
		return nil, nil
	case s.TLSCertFile == "" || s.TLSKeyFile == "":
		return nil, configError("--tls-cert-file and --tls-key-file go together")
	}
	c := &certificate{cert: s.TLSCertFile, key: s.TLSKeyFile, log: log, failures: m.reloadFailures}
	if err := c.load(c.files()); err != nil {
		return nil, configError("the certificate of the API port: %w", err)
	}
	return c, nil
}

// files tells apart versions of the two files.
func (c *certificate) files() string {
	var all strings.Builder
	for _, name := range []string{c.cert, c.key} {
		if info, err := os.Stat(name); err == nil {
			fmt.Fprint(&all, info.ModTime().UnixNano(), " ", info.Size(), "\n")
		} else {
			fmt.Fprintln(&all, err)
		}
	}
	return all.String()
}

// load reads the files, whose version is stamp. The caller holds mu, or nobody else
// knows c yet.
func (c *certificate) load(stamp string) error {
	c.stamp, c.looked = stamp, time.Now()
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return err
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return err
		}
	}
	c.now = &pair
	switch left := time.Until(pair.Leaf.NotAfter); {
	case left <= 0:
		c.log.Error("the certificate of the API port has expired: clients will refuse it; replace the file, it is read again by itself", "file", c.cert, "not_after", pair.Leaf.NotAfter)
	case time.Now().Before(pair.Leaf.NotBefore):
		c.log.Error("the certificate of the API port is not valid yet: clients will refuse it", "file", c.cert, "not_before", pair.Leaf.NotBefore)
	default:
		c.log.Info("certificate of the API port read", "file", c.cert, "names", pair.Leaf.DNSNames, "not_after", pair.Leaf.NotAfter)
	}
	return nil
}

// current is the certificate in force, read again if its files have changed.
func (c *certificate) current() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < certLook {
		return c.now
	}
	c.looked = time.Now()
	if stamp := c.files(); stamp != c.stamp {
		if err := c.load(stamp); err != nil {
			c.failures.Inc()
			c.log.Error("the certificate of the API port has changed and cannot be read: the one before stays in force", "err", err)
		}
	}
	return c.now
}

// over encrypts what a listener accepts; l itself where there is no certificate.
func (c *certificate) over(l net.Listener) net.Listener {
	if c == nil {
		return l
	}
	return tls.NewListener(plainGuard{l}, &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current(), nil },
	})
}

// plainGuard tells a client that speaks plain HTTP to a TLS port so, instead of
// hanging up.
type plainGuard struct{ net.Listener }

func (g plainGuard) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &guarded{Conn: c}, nil
}

type guarded struct {
	net.Conn
	begun bool
}

// NetConn is what is guarded.
func (c *guarded) NetConn() net.Conn { return c.Conn }

var errPlainHTTP = errors.New("plain HTTP on a TLS port")

// Read looks at the first byte: that of TLS is no letter.
func (c *guarded) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.begun || n == 0 {
		return n, err
	}
	c.begun = true
	if b[0] < 'A' || b[0] > 'Z' {
		return n, err
	}
	p := problem.New(muster.Errorf(muster.CodeMalformedRequest, "this port speaks HTTPS").WithHint("begin the address with https://"), "/", "")
	body := p.JSON()
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	fmt.Fprintf(c.Conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", problem.ContentType, len(body), body)
	return 0, errPlainHTTP
}
