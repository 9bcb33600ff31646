package muster_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/muster-registry/muster"
)

func valid() muster.Instance {
	return muster.Instance{Service: "web", ID: "web-1", Address: "10.0.0.5", Port: 8080, Weight: muster.DefaultWeight}
}

func TestNormalizeRefuses(t *testing.T) {
	long := strings.Repeat("x", 2000)
	tests := []struct {
		name    string
		spoil   func(*muster.Instance)
		code    muster.Code
		pointer string
	}{
		{"empty service", func(i *muster.Instance) { i.Service = "" }, muster.CodeInvalidName, "/service"},
		{"slash in service", func(i *muster.Instance) { i.Service = "a/b" }, muster.CodeInvalidName, "/service"},
		{"dots for a service", func(i *muster.Instance) { i.Service = ".." }, muster.CodeInvalidName, "/service"},
		{"unicode service", func(i *muster.Instance) { i.Service = "wéb" }, muster.CodeInvalidName, "/service"},
		{"long service", func(i *muster.Instance) { i.Service = long }, muster.CodeInvalidName, "/service"},
		{"dash at the end", func(i *muster.Instance) { i.Service = "web-" }, muster.CodeInvalidName, "/service"},
		{"colon in service", func(i *muster.Instance) { i.Service = "a:b" }, muster.CodeInvalidName, "/service"},
		{"bad namespace", func(i *muster.Instance) { i.Namespace = "_x" }, muster.CodeInvalidName, "/namespace"},
		{"id with newline", func(i *muster.Instance) { i.ID = "a\nb" }, muster.CodeInvalidName, "/id"},
		{"no address", func(i *muster.Instance) { i.Address = "" }, muster.CodeInvalidAddress, "/address"},
		{"zoned address", func(i *muster.Instance) { i.Address = "::1%eth0" }, muster.CodeInvalidAddress, "/address"},
		{"unspecified", func(i *muster.Instance) { i.Address = "0.0.0.0" }, muster.CodeInvalidAddress, "/address"},
		{"unspecified v6", func(i *muster.Instance) { i.Address = "::" }, muster.CodeInvalidAddress, "/address"},
		{"mapped unspecified", func(i *muster.Instance) { i.Address = "::ffff:0.0.0.0" }, muster.CodeInvalidAddress, "/address"},
		{"multicast", func(i *muster.Instance) { i.Address = "224.0.0.1" }, muster.CodeInvalidAddress, "/address"},
		{"octal", func(i *muster.Instance) { i.Address = "010.0.0.1" }, muster.CodeInvalidAddress, "/address"},
		{"with port", func(i *muster.Instance) { i.Address = "[::1]:80" }, muster.CodeInvalidAddress, "/address"},
		{"user info", func(i *muster.Instance) { i.Address = "me@host" }, muster.CodeInvalidAddress, "/address"},
		{"long host", func(i *muster.Instance) { i.Address = strings.Repeat("a.", 127) + "a" }, muster.CodeInvalidAddress, "/address"},
		{"port 0", func(i *muster.Instance) { i.Port = 0 }, muster.CodeInvalidPort, "/port"},
		{"port 65536", func(i *muster.Instance) { i.Port = 65536 }, muster.CodeInvalidPort, "/port"},
		{"port -1", func(i *muster.Instance) { i.Port = -1 }, muster.CodeInvalidPort, "/port"},
		{"named port", func(i *muster.Instance) { i.Ports = map[string]int{"m": 0} }, muster.CodeInvalidPort, "/ports/m"},
		{"weight", func(i *muster.Instance) { i.Weight = 65536 }, muster.CodeInvalidPort, "/weight"},
		{"ttl short", func(i *muster.Instance) { i.TTL = 5 }, muster.CodeTTLOutOfRange, "/ttl"},
		{"tags", func(i *muster.Instance) { i.Tags = make([]string, 65) }, muster.CodeMetadataTooLarge, "/tags"},
		{"tag long", func(i *muster.Instance) { i.Tags = []string{long} }, muster.CodeMetadataTooLarge, "/tags/0"},
		{"tag CR", func(i *muster.Instance) { i.Tags = []string{"a\rb"} }, muster.CodeInvalidName, "/tags/0"},
		{"meta value", func(i *muster.Instance) { i.Meta = map[string]string{"k": long} }, muster.CodeMetadataTooLarge, "/meta/k"},
		{"meta NUL", func(i *muster.Instance) { i.Meta = map[string]string{"k": "\x00"} }, muster.CodeInvalidName, "/meta/k"},
		{"meta utf8", func(i *muster.Instance) { i.Meta = map[string]string{"k": "\xff"} }, muster.CodeInvalidName, "/meta/k"},
		{"on_expiry", func(i *muster.Instance) { i.OnExpiry = "explode" }, muster.CodeConflictingField, "/on_expiry"},
		{"remove_after alone", func(i *muster.Instance) { i.RemoveAfter = muster.Duration(muster.MinTTL) }, muster.CodeConflictingField, "/remove_after"},
		{"version", func(i *muster.Instance) { i.Version = "1\n2" }, muster.CodeInvalidName, "/version"},
		{"incarnation", func(i *muster.Instance) { i.Incarnation = 1 << 53 }, muster.CodeInvalidIndex, "/incarnation"},
		{"check type", func(i *muster.Instance) { i.Checks = []muster.Check{{Type: "exec"}} }, muster.CodeInvalidCheck, "/checks/0"},
		{"check path", func(i *muster.Instance) { i.Checks = []muster.Check{{Type: "http", Path: "http://x/"}} }, muster.CodeInvalidCheck, "/checks/0"},
		{"check field", func(i *muster.Instance) { i.Checks = []muster.Check{{Type: "tcp", Path: "/"}} }, muster.CodeInvalidCheck, "/checks/0"},
		{"check twins", func(i *muster.Instance) {
			i.Checks = []muster.Check{{Name: "a", Type: "tcp"}, {Name: "a", Type: "tcp"}}
		}, muster.CodeInvalidCheck, "/checks/1/name"},
		{"check interval", func(i *muster.Instance) { i.Checks = []muster.Check{{Type: "tcp", Interval: 5}} }, muster.CodeInvalidCheck, "/checks/0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			i := valid()
			tt.spoil(&i)
			err := i.Normalize()
			e, ok := errors.AsType[*muster.Error](err)
			if !ok {
				t.Fatalf("got %v, want a coded error", err)
			}
			if e.Code != tt.code || len(e.Fields) == 0 || e.Fields[0].Pointer != tt.pointer {
				t.Errorf("got %v %+v, want %s at %s", e, e.Fields, tt.code, tt.pointer)
			}
			if !errors.Is(err, tt.code) {
				t.Errorf("errors.Is(%v, %s) is false", err, tt.code)
			}
		})
	}
}

func TestNormalizeReportsAllFaults(t *testing.T) {
	i := muster.Instance{Service: "web", ID: "!", Address: "::", Port: 70000}
	e, ok := errors.AsType[*muster.Error](i.Normalize())
	if !ok || len(e.Fields) != 3 {
		t.Fatalf("got %+v, want three faults", e)
	}
}

func TestNormalizeCanonical(t *testing.T) {
	i := valid()
	i.Service, i.Address = "WEB", "::ffff:10.1.2.3"
	i.Tags = []string{"b", "a", "b"}
	i.Meta = map[string]string{}
	i.Status, i.Routable, i.ModifyIndex = muster.StatusDown, true, 9
	i.Checks = []muster.Check{{Type: "http"}}
	if err := i.Normalize(); err != nil {
		t.Fatal(err)
	}
	if i.Namespace != "default" || i.Service != "web" || i.Address != "10.1.2.3" || i.TTL != muster.TTL(muster.DefaultTTL) || i.OnExpiry != muster.ExpiryRemove {
		t.Errorf("got %+v", i)
	}
	if strings.Join(i.Tags, ",") != "a,b" || i.Meta != nil || i.Status != "" || i.ModifyIndex != 0 {
		t.Errorf("got %+v", i)
	}
	want := muster.Check{Name: "check-1", Type: "http", Method: "GET", Path: "/", Expect: "200-399", Interval: muster.Duration(muster.DefaultInterval), Timeout: muster.Duration(muster.DefaultCheckWait), Fall: 3, Rise: 1}
	if i.Checks[0] != want {
		t.Errorf("got %+v, want %+v", i.Checks[0], want)
	}
	again := i
	if err := again.Normalize(); err != nil || !again.SameSpec(&i) {
		t.Errorf("normalizing twice changes: %+v, %v", again, err)
	}
}

func TestTTLReads(t *testing.T) {
	tests := []struct {
		in   string
		want string // "" is refused
	}{
		{`"10s"`, "10s"}, {`"1m30s"`, "1m30s"}, {`"none"`, "none"}, {`"24h"`, "24h0m0s"}, {`"1s"`, "1s"},
		{`"0s"`, ""}, {`"999ms"`, ""}, {`"25h"`, ""}, {`"-5s"`, ""}, {`10`, ""}, {`"10"`, ""}, {`"NaN"`, ""}, {`1e400`, ""}, {`""`, ""}, {`{}`, ""}, {`true`, ""},
	}
	for _, tt := range tests {
		var ttl muster.TTL
		err := ttl.UnmarshalJSON([]byte(tt.in))
		switch {
		case tt.want == "" && !errors.Is(err, muster.CodeTTLOutOfRange):
			t.Errorf("%s: got %v, %v; want %s", tt.in, ttl, err, muster.CodeTTLOutOfRange)
		case tt.want != "" && (err != nil || ttl.String() != tt.want):
			t.Errorf("%s: got %v, %v; want %s", tt.in, ttl, err, tt.want)
		}
	}
}

func TestInstanceJSONRoundTrip(t *testing.T) {
	i := valid()
	i.Ports = map[string]int{"metrics": 9100}
	i.Checks = []muster.Check{{Type: "http", Path: "/health"}}
	if err := i.Normalize(); err != nil {
		t.Fatal(err)
	}
	i.LeaseID = muster.MakeLeaseID(42, 3)
	b, err := json.Marshal(i)
	if err != nil {
		t.Fatal(err)
	}
	var o muster.Instance
	if err := json.Unmarshal(b, &o); err != nil {
		t.Fatal(err)
	}
	if !o.SameSpec(&i) || o.LeaseID != i.LeaseID || !strings.Contains(string(b), `"lease_id":"42-3"`) || !strings.Contains(string(b), `"ttl":"15s"`) {
		t.Errorf("got %s", b)
	}
}

func FuzzNormalize(f *testing.F) {
	f.Add("web", "web-1", "10.0.0.5", 8080, "tag", "key", "value")
	f.Add("WEB", "a@b:1", "host.example", 1, "", "\x00", "\xff")
	f.Fuzz(func(t *testing.T, service, id, address string, port int, tag, key, value string) {
		i := muster.Instance{Service: service, ID: id, Address: address, Port: port, Weight: 1, Tags: []string{tag}, Meta: map[string]string{key: value}}
		if i.Normalize() != nil {
			return
		}
		again := i
		if err := again.Normalize(); err != nil || !again.SameSpec(&i) || again.Service != i.Service {
			t.Fatalf("normalizing %+v again gives %+v, %v", i, again, err)
		}
		b, err := json.Marshal(i)
		if err != nil {
			t.Fatal(err)
		}
		var o muster.Instance
		if err := json.Unmarshal(b, &o); err != nil || !o.SameSpec(&i) {
			t.Fatalf("%s reads back as %+v, %v", b, o, err)
		}
	})
}

func TestHostPort(t *testing.T) {
	i := muster.Instance{Address: "::1", Port: 80, Ports: map[string]int{"admin": 81}}
	for name, want := range map[string]string{"": "[::1]:80", "admin": "[::1]:81"} {
		if got, ok := i.HostPort(name); got != want || !ok {
			t.Errorf("port %q is at %s %t, want %s", name, got, ok, want)
		}
	}
	if got, ok := i.HostPort("other"); ok {
		t.Errorf("a port that it does not have is at %s", got)
	}
}
