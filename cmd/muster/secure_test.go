package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// authority makes certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
	made int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, cert: cert, key: key, dir: t.TempDir(), made: 1}
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	// Replaced in one step, as tools that renew certificates do.
	part := a.file(name + ".new")
	if err := os.WriteFile(part, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Rename(part, a.file(name)); err != nil {
		a.t.Fatal(err)
	}
}

// issue writes node.pem and node.key, valid until then, and returns the serial
// number.
func (a *authority) issue(until time.Time) *big.Int {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.made++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.made), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write("node.key", "EC PRIVATE KEY", private)
	a.write("node.pem", "CERTIFICATE", der)
	return template.SerialNumber
}

func (a *authority) client() *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}}
}

func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

// TestSecuredCluster: three processes with a cluster key and certificates, bound to
// all interfaces without --insecure. The certificate is renewed while they run.
func TestSecuredCluster(t *testing.T) {
	a := newAuthority(t)
	first := a.issue(time.Now().Add(time.Hour))
	_, key, _ := command(t, "keygen")
	if err := os.WriteFile(a.file("cluster.key"), []byte("# of a test\n"+key), 0o600); err != nil {
		t.Fatal(err)
	}
	nodes := newCluster(t, 3)
	for _, p := range nodes {
		p.args = append(p.args, "--cluster-key-file", a.file("cluster.key"), "--tls-cert-file", a.file("node.pem"), "--tls-key-file", a.file("node.key"), "--advertise", "127.0.0.1")
		for n, arg := range p.args {
			switch arg {
			case "--api-addr", "--peer-addr", "--gossip-addr":
				_, port, err := net.SplitHostPort(p.args[n+1])
				if err != nil {
					t.Fatal(err)
				}
				p.args[n+1] = "0.0.0.0:" + port
			}
		}
		p.url = "https" + strings.TrimPrefix(p.url, "http")
		p.start()
	}
	client := a.client()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	awaited := func(what string, ok func() bool) {
		t.Helper()
		for !ok() {
			if ctx.Err() != nil {
				t.Fatalf("waited in vain for %s", what)
			}
			<-time.NewTimer(20 * time.Millisecond).C
		}
	}
	for _, p := range nodes {
		awaited("readiness", func() bool {
			status, _, err := request(ctx, client, "GET", p.url+"/readyz?require=leader", "")
			return err == nil && status == 200
		})
	}
	code, _, errs := command(t, "register", "web", "--id", "w", "--address", "10.0.0.5", "--port", "80", "--ttl", "none", "--addr", nodes[0].url, "--ca-file", a.file("ca.pem"))
	if code != 0 {
		t.Fatalf("registering: %d %s", code, errs)
	}
	awaited("the instance on another node", func() bool {
		_, out, _ := command(t, "instances", "web", "--addr", nodes[1].url, "--ca-file", a.file("ca.pem"))
		return strings.Contains(out, "10.0.0.5:80")
	})
	if code, _, errs := command(t, "instances", "web", "--addr", nodes[1].url); code == 0 || !strings.Contains(errs, "certificate") {
		t.Errorf("without the authority: %d %s", code, errs)
	}
	status, text, err := request(ctx, http.DefaultClient, "GET", "http"+strings.TrimPrefix(nodes[0].url, "https")+"/v1/services", "")
	if err != nil || status != 400 || !strings.Contains(text, "https://") {
		t.Errorf("plain HTTP was answered %d %s %v", status, text, err)
	}

	serial := func() *big.Int {
		c, err := tls.Dial("tcp", strings.TrimPrefix(nodes[0].url, "https://"), client.Transport.(*http.Transport).TLSClientConfig)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber
	}
	if got := serial(); got.Cmp(first) != 0 {
		t.Errorf("the certificate is %v, want %v", got, first)
	}
	second := a.issue(time.Now().Add(time.Hour))
	awaited("the renewed certificate", func() bool { return serial().Cmp(second) == 0 })
	a.write("node.pem", "CERTIFICATE", []byte("damaged"))
	awaited("the complaint", func() bool {
		serial()
		return strings.Contains(nodes[0].log.String(), "cannot be read: the one before stays")
	})
	if got := serial(); got.Cmp(second) != 0 {
		t.Errorf("after a damaged file the certificate is %v, want %v", got, second)
	}
	status, text, err = request(ctx, client, "GET", nodes[0].url+"/metrics", "")
	if err != nil || status != 200 || !strings.Contains(text, "muster_node_tls_reload_failures_total 1") {
		t.Errorf("the metrics do not count the failure: %d %v", status, err)
	}
}

// TestSecretsRefused: what is wrong with a secret is said in one line.
func TestSecretsRefused(t *testing.T) {
	a := newAuthority(t)
	a.issue(time.Now().Add(-time.Hour))
	for name, text := range map[string]string{"short.key": "c2hvcnQ=\n", "empty.key": "# nothing\n", "text.key": "not base64!\n"} {
		if err := os.WriteFile(a.file(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--cluster-key-file", a.file("none.key")}, "no such file"},
		{[]string{"--cluster-key-file", a.file("short.key")}, "line 1 is not 32 bytes"},
		{[]string{"--cluster-key-file", a.file("text.key")}, "muster keygen"},
		{[]string{"--cluster-key-file", a.file("empty.key")}, "holds no key"},
		{[]string{"--tls-cert-file", a.file("node.pem")}, "go together"},
		{[]string{"--tls-cert-file", a.file("node.pem"), "--tls-key-file", a.file("none.key")}, "no such file"},
		{[]string{"--tls-cert-file", a.file("node.pem"), "--tls-key-file", a.file("ca.pem")}, "the certificate of the API port"},
		{[]string{"--api-addr", "0.0.0.0:0"}, "secure it with --tls-cert-file"},
		{[]string{"--peer-addr", "0.0.0.0:0"}, "secure it with --cluster-key-file"},
	} {
		code, _, errs := command(t, append([]string{"server", "--data-dir", t.TempDir()}, c.args...)...)
		if code != exitConfig || !strings.Contains(errs, c.want) || strings.Count(strings.TrimSpace(errs), "\n") > 0 {
			t.Errorf("%v: exit %d, %q, want %d and one line with %q", c.args, code, errs, exitConfig, c.want)
		}
	}

	// An expired certificate starts, and says so: a node that does not come back is
	// worse than one whose clients complain.
	nodes := newCluster(t, 1)
	nodes[0].args = append(nodes[0].args, "--tls-cert-file", a.file("node.pem"), "--tls-key-file", a.file("node.key"))
	nodes[0].start()
	deadline := time.Now().Add(patience)
	for !strings.Contains(nodes[0].log.String(), "has expired") {
		if time.Now().After(deadline) {
			t.Fatal("nothing is said of the expired certificate")
		}
		<-time.NewTimer(20 * time.Millisecond).C
	}
	// It is said before the port is open.
	_, err := a.client().Get("https" + strings.TrimPrefix(nodes[0].url, "http") + "/livez")
	for errors.Is(err, syscall.ECONNREFUSED) && time.Now().Before(deadline) {
		<-time.NewTimer(20 * time.Millisecond).C
		_, err = a.client().Get("https" + strings.TrimPrefix(nodes[0].url, "http") + "/livez")
	}
	if err == nil || !strings.Contains(fmt.Sprint(err), "expired") {
		t.Errorf("a client is told %v", err)
	}
}
