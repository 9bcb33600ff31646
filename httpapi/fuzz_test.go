package httpapi_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/httpapi"
)

// FuzzDecode holds the strict decoder against encoding/json: whatever it accepts,
// encoding/json reads as the same instance, and an error always has a code.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(webBody))
	for _, c := range badInputs() {
		if c.body != "" {
			f.Add([]byte(c.body))
		}
	}
	f.Add([]byte(`{"address":"\ud83d\udca5\u0041\/\"","meta":{"\n":"x"},"lease_id":"42-0","ttl":"none","override":{"a":[1,2.5e-3,true,null]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got := muster.Instance{Weight: muster.DefaultWeight}
		err := httpapi.DecodeJSON(data, &got)
		if err != nil {
			if e, ok := err.(*muster.Error); !ok || e.Code == "" {
				t.Fatalf("%q: %#v has no code", data, err)
			}
			return
		}
		// What is the registry's is not read; take it out for the comparison.
		var loose map[string]json.RawMessage
		if err := json.Unmarshal(data, &loose); err != nil {
			t.Fatalf("%q was accepted: %v", data, err)
		}
		for name := range httpapi.RegistryFields() {
			delete(loose, name)
		}
		rest, err := json.Marshal(loose)
		if err != nil {
			t.Fatal(err)
		}
		want := muster.Instance{Weight: muster.DefaultWeight}
		d := json.NewDecoder(bytes.NewReader(rest))
		d.DisallowUnknownFields()
		if err := d.Decode(&want); err != nil {
			t.Fatalf("%q was accepted: %v", data, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q was read as\n%+v\nwant\n%+v", data, got, want)
		}
	})
}

// FuzzQuery holds the parser of queries against net/url: what it accepts, net/url
// reads in the same way.
func FuzzQuery(f *testing.F) {
	for _, c := range badInputs() {
		if _, q, ok := strings.Cut(c.target, "?"); ok {
			f.Add(q)
		}
	}
	f.Add("tag=a&tag=b&meta.x=1&meta.y=%C3%A9&zone=a+b&routable=true&status=up&filter=a%3D%3Db&min_index=7&consistency=linearizable&max_stale=5s")
	f.Fuzz(func(t *testing.T, raw string) {
		q, o, err := httpapi.ParseQuery(raw)
		if err != nil {
			if e, ok := err.(*muster.Error); !ok || e.Code == "" {
				t.Fatalf("%q: %#v has no code", raw, err)
			}
			return
		}
		v, err := url.ParseQuery(raw)
		if err != nil {
			t.Fatalf("%q was accepted: %v", raw, err)
		}
		if o.Linearizable != (v.Get("consistency") == "linearizable") {
			t.Fatalf("%q: linearizable %v", raw, o.Linearizable)
		}
		if q == nil {
			return
		}
		if q.Zone != v.Get("zone") || q.Version != v.Get("version") || q.Filter != v.Get("filter") || string(q.Status) != v.Get("status") || !reflect.DeepEqual(q.Tags, v["tag"]) {
			t.Fatalf("%q was read as %+v", raw, q)
		}
		for k, m := range q.Meta {
			if v.Get("meta."+k) != m {
				t.Fatalf("%q was read as %+v", raw, q)
			}
		}
	})
}

// FuzzRequest sends any target and body through the whole server: no input yields
// a 500, a redirect, or an error that is no problem.
func FuzzRequest(f *testing.F) {
	for _, c := range badInputs() {
		f.Add(c.method, c.target, c.body)
	}
	f.Add("PUT", "/v1/services/web/instances/a", plain)
	f.Add("GET", "/v1/services/web?zone=a&tag=b", "")
	f.Add("POST", "/v1/services/web/pick?zone=prefer:a&n=3&strategy=rendezvous&key=k&ticket_ttl=1m", "")
	f.Add("POST", "/v1/picks/n.t", `{"outcome":"failure","latency":"12ms"}`)
	f.Add("POST", "/v1/services/web/instances/a/outcomes", `{"successes":9,"failures":1}`)
	f.Fuzz(func(t *testing.T, method, target, body string) {
		if strings.Contains(target, "wait") || strings.Contains(target, "index") {
			return // these wait on purpose
		}
		r, err := http.ReadRequest(reader(method + " " + target + " HTTP/1.1\r\nHost: localhost\r\n\r\n"))
		if err != nil {
			return // net/http answers itself
		}
		r.Body, r.ContentLength = http.NoBody, int64(len(body))
		if body != "" {
			r.Body = readCloser{strings.NewReader(body)}
		}
		fx := fuzzed(t)
		w := httptest.NewRecorder()
		fx.ServeHTTP(w, r)
		switch {
		case w.Code == 500, w.Code >= 300 && w.Code < 400 && w.Code != 304:
			t.Fatalf("%q %q %q: %d %s", method, target, body, w.Code, w.Body)
		case w.Code >= 400 && w.Header().Get("Content-Type") != "application/problem+json":
			t.Fatalf("%q %q %q: %d is no problem: %s", method, target, body, w.Code, w.Body)
		}
	})
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

func fuzzed(t *testing.T) http.Handler {
	t.Helper()
	s, err := httpapi.New(httpapi.Config{}, depsOf(nowhere{}, newMemory()))
	if err != nil {
		t.Fatal(err)
	}
	return s.Handler()
}
