package health

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster"
)

func TestReportRoundTrip(t *testing.T) {
	r := report{boot: 7, opinions: []opinion{
		{key: muster.InstanceKey{Namespace: "default", Service: "web", ID: "w1"}, life: 1 << 45, place: 3, status: muster.StatusUp, output: "200 OK", latency: time.Millisecond},
		{key: muster.InstanceKey{Namespace: "default", Service: "web", ID: "w2"}, life: 9, status: muster.StatusDown, cause: muster.CheckTimeout},
	}}
	got, err := decodeReport(r.encode())
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v, %v", got, err)
	}
	c := receipt{term: 3, version: 4, probers: []string{"a", "b"}, missed: true}
	back, err := decodeReceipt(c.encode())
	if err != nil || !reflect.DeepEqual(back, c) {
		t.Errorf("got %+v, %v", back, err)
	}
	r.opinions = make([]opinion, maxReport+1)
	if _, err := decodeReport(r.encode()); err == nil {
		t.Error("a report without bounds is taken")
	}
}

func FuzzReport(f *testing.F) {
	r := report{boot: 7, opinions: []opinion{{key: muster.InstanceKey{ID: "x"}, output: "y"}}}
	f.Add(r.encode())
	c := receipt{term: 3, probers: []string{"a"}}
	f.Add(c.encode())
	f.Add([]byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeReport(b); err == nil {
			for _, o := range r.opinions {
				if len(o.output) > muster.MaxCheckOutputLen || o.place > muster.MaxChecks || o.status == "" {
					t.Errorf("out of bounds: %+v", o)
				}
			}
			if again, err := decodeReport(r.encode()); err != nil || !reflect.DeepEqual(again, r) {
				t.Errorf("%+v becomes %+v, %v", r, again, err)
			}
		}
		_, _ = decodeReceipt(b)
	})
}

// TestClean: what is shown of a probe is one printable line of bounded length.
func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"ok": "ok", "a\r\nb\x00c\x1b[31m": "a  b?c?[31m", "\xff\xfe": "??", "ä\u2028b": "ä b", "": "",
		strings.Repeat("é", 200): strings.Repeat("é", 128),
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestPhases: checks that begin together are probed spread over their interval,
// the two owners apart.
func TestPhases(t *testing.T) {
	const count, parts = 10_000, 10
	known := &muster.Check{Interval: muster.Duration(10 * time.Second), CheckState: muster.CheckState{Status: muster.StatusUp}}
	fresh := &muster.Check{Interval: muster.Duration(10 * time.Second), CheckState: muster.CheckState{Status: muster.StatusUnknown}}
	var hits, firsts [parts]int
	for n := range count {
		h := checkHash(muster.InstanceKey{Namespace: "d", Service: "s", ID: string(rune('a'+n%26)) + strings.Repeat("x", n/26%50) + string(rune('0'+n/1300))}, 0)
		a, b := phase(known, h, true), phase(known, h, false)
		if d := (a - b).Abs(); d < 4900*time.Millisecond || d > 5100*time.Millisecond {
			t.Fatalf("the owners probe %s apart", d)
		}
		hits[a/time.Second]++
		if f := phase(fresh, h, true); f >= firstWithin {
			t.Fatalf("a new check waits %s", f)
		}
		firsts[phase(fresh, h, true)/(firstWithin/parts)]++
	}
	for n := range parts {
		if hits[n] < count/parts*85/100 || hits[n] > count/parts*115/100 || firsts[n] < count/parts*85/100 {
			t.Errorf("part %d of the interval holds %d and %d of %d", n, hits[n], firsts[n], count)
		}
	}
}
