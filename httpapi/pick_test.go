package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/muster-registry/muster"
)

// pickAs asks for a pick and returns the answer.
func pickAs(t *testing.T, f *fixture, method, target, accept string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "http://localhost"+target, nil)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	f.server.Handler().ServeHTTP(w, r)
	return w
}

// post sends a body that must be answered with the status.
func post(t *testing.T, f *fixture, target, body string, want int) string {
	t.Helper()
	r := httptest.NewRequest("POST", "http://localhost"+target, strings.NewReader(body))
	w := httptest.NewRecorder()
	f.server.Handler().ServeHTTP(w, r)
	if w.Code != want {
		t.Fatalf("POST %s %s: got %d %s, want %d", target, body, w.Code, w.Body, want)
	}
	return w.Body.String()
}

func register(t *testing.T, f *fixture, ids ...string) {
	t.Helper()
	for n, id := range ids {
		i := &muster.Instance{Service: "web", ID: id, Address: fmt.Sprintf("10.0.0.%d", n+1), Port: 80, Weight: 100, Meta: map[string]string{"a": `<&"\>`}}
		if _, err := f.registry.Register(t.Context(), muster.Caller{}, i, muster.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPickIsWhatItsTypeSays: the answer, which is not written by encoding/json, is
// what encoding/json would write.
func TestPickIsWhatItsTypeSays(t *testing.T) {
	f := newFixture(t, nil)
	register(t, f, "a", "b", "c")
	for _, c := range []struct{ method, query string }{
		{"GET", ""}, {"GET", "?n=2"}, {"GET", "?n=100&strategy=rendezvous&key=k"}, {"POST", ""}, {"POST", "?n=3&status=up"},
	} {
		w := pickAs(t, f, c.method, "/v1/services/web/pick"+c.query, "")
		var got muster.Pick
		d := json.NewDecoder(strings.NewReader(w.Body.String()))
		d.DisallowUnknownFields()
		if err := d.Decode(&got); err != nil || w.Code != 200 {
			t.Fatalf("%v: %d %v %s", c, w.Code, err, w.Body)
		}
		want, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if w.Body.String() != string(want) {
			t.Errorf("%v: got\n%s\nwant\n%s", c, w.Body, want)
		}
		if (c.method == "POST") != (got.Ticket != "") || w.Header().Get("Muster-Ticket") != got.Ticket {
			t.Errorf("%v: ticket %q, header %q", c, got.Ticket, w.Header().Get("Muster-Ticket"))
		}
	}
}

// TestPicksTakeTurns: equal picks of whoever asks take turns together.
func TestPicksTakeTurns(t *testing.T) {
	f := newFixture(t, nil)
	register(t, f, "a", "b", "c")
	got := map[string]int{}
	for range 30 {
		got[pickAs(t, f, "GET", "/v1/services/web/pick", "text/plain").Body.String()]++
	}
	for n := range 3 {
		if addr := fmt.Sprintf("10.0.0.%d:80\n", n+1); got[addr] != 10 {
			t.Errorf("of 30 picks: got %v, want 10 each", got)
		}
	}
}

// TestTicket: a ticket counts as in flight until it is reported, once.
func TestTicket(t *testing.T) {
	f := newFixture(t, nil)
	register(t, f, "a")
	stats := func() (inFlight, failures int) {
		t.Helper()
		w := pickAs(t, f, "GET", "/v1/services/web?view=balancer", "")
		var v struct {
			InFlight  int `json:"in_flight"`
			Instances []struct {
				Failures int
			}
		}
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != 200 || len(v.Instances) != 1 {
			t.Fatalf("%d %v %s", w.Code, err, w.Body)
		}
		return v.InFlight, v.Instances[0].Failures
	}
	pickAs(t, f, "GET", "/v1/services/web/pick", "")
	if n, _ := stats(); n != 0 {
		t.Errorf("after a GET %d are in flight", n)
	}
	w := pickAs(t, f, "POST", "/v1/services/web/pick?n=1", "text/plain")
	ticket := w.Header().Get("Muster-Ticket")
	if w.Body.String() != "10.0.0.1:80\n" || ticket == "" {
		t.Fatalf("got %q with ticket %q", w.Body, ticket)
	}
	if n, _ := stats(); n != 1 {
		t.Errorf("after a POST %d are in flight, want 1", n)
	}
	post(t, f, "/v1/picks/"+ticket, `{"outcome":"failure","latency":"3ms"}`, http.StatusNoContent)
	if n, failures := stats(); n != 0 || failures != 1 {
		t.Errorf("after the report %d are in flight and %d failed, want 0 and 1", n, failures)
	}
	if body := post(t, f, "/v1/picks/"+ticket, `{"outcome":"failure"}`, http.StatusNotFound); !strings.Contains(body, `"unknown_ticket"`) {
		t.Errorf("the same ticket again: %s", body)
	}
}

// TestPickReadingRules: a pick is as current as it is asked to be, like any read.
func TestPickReadingRules(t *testing.T) {
	f := newFixture(t, nil)
	register(t, f, "a")
	w := pickAs(t, f, "POST", "/v1/services/web/pick?consistency=linearizable", "")
	if w.Code != 200 || w.Header().Get("Muster-Stale-Ms") != "0" || w.Header().Get("Muster-Index") != "1" {
		t.Errorf("linearizable: got %d %v", w.Code, w.Header())
	}
	f.registry.blocks = true // a read that gets no answer is no write of which one cannot know
	w = pickAs(t, f, "POST", "/v1/services/web/pick?consistency=linearizable&timeout=10ms", "")
	if w.Code != 503 || !strings.Contains(w.Body.String(), `"overloaded"`) {
		t.Errorf("a pick that times out: got %d %s", w.Code, w.Body)
	}
	f.registry.blocks = false
	f.registry.failure = muster.Errorf(muster.CodeCatchingUp, "not yet")
	if w = pickAs(t, f, "GET", "/v1/services/web/pick", ""); w.Code != 503 || !strings.Contains(w.Body.String(), `"catching_up"`) {
		t.Errorf("while catching up: got %d %s", w.Code, w.Body)
	}
}

func TestAccept(t *testing.T) {
	f := newFixture(t, nil)
	register(t, f, "a")
	for accept, text := range map[string]bool{
		"": false, "*/*": false, "text/plain": true, "TEXT/Plain; q=0.5": true, "text/*": true, "application/json": false,
		"application/json, text/plain, */*": false, "text/plain, application/json": false, "text/plain, */*": true, "text/plain;q=0.5, */*;q=0.8": false,
		"text/plain;q=0": false, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": false, "application/json;q=0.1, text/plain;charset=utf-8;q=0.2": true,
		"text/plain;q=NaN": false, "application/*": false, ",,;": false,
	} {
		w := pickAs(t, f, "GET", "/v1/services/web/pick", accept)
		if got := w.Header().Get("Content-Type") == "text/plain; charset=utf-8"; got != text || w.Code != 200 {
			t.Errorf("Accept %q: text %v, want %v", accept, got, text)
		}
	}
}
