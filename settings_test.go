package muster_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/muster-registry/muster"
)

func TestSettingsValidate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		set  func(*muster.Settings)
		code muster.Code
		at   string
	}{
		{"the defaults", func(*muster.Settings) {}, "", ""},
		{"everything off", func(s *muster.Settings) {
			s.PanicThreshold, s.ZoneThreshold, s.MaxEjected, s.ConsecutiveFailures, s.FailureRate = 0, 0, 0, 0, 0
		}, "", ""},
		{"unknown strategy", func(s *muster.Settings) { s.Strategy = "fastest" }, muster.CodeInvalidStrategy, "/strategy"},
		{"no strategy", func(s *muster.Settings) { s.Strategy = "" }, muster.CodeInvalidStrategy, "/strategy"},
		{"a share above all", func(s *muster.Settings) { s.PanicThreshold = 101 }, muster.CodeConflictingField, "/panic_threshold"},
		{"a negative share", func(s *muster.Settings) { s.MaxEjected = -1 }, muster.CodeConflictingField, "/max_ejected"},
		{"a zone threshold above all", func(s *muster.Settings) { s.ZoneThreshold = 200 }, muster.CodeConflictingField, "/zone_threshold"},
		{"a failure rate above all", func(s *muster.Settings) { s.FailureRate = 101 }, muster.CodeConflictingField, "/failure_rate"},
		{"too many failures", func(s *muster.Settings) { s.ConsecutiveFailures = 1001 }, muster.CodeConflictingField, "/consecutive_failures"},
		{"a bound at the average", func(s *muster.Settings) { s.LoadFactor = 100 }, muster.CodeConflictingField, "/load_factor"},
		{"no ejection time", func(s *muster.Settings) { s.EjectionTime = 0 }, muster.CodeInvalidDuration, "/ejection_time"},
		{"an endless ramp", func(s *muster.Settings) { s.SlowStart = muster.Duration(2 * time.Hour) }, muster.CodeInvalidDuration, "/slow_start"},
	} {
		s := muster.DefaultSettings()
		c.set(&s)
		err := s.Validate()
		if got := muster.CodeOf(err); got != c.code {
			t.Errorf("%s: code %q, want %q (%v)", c.name, got, c.code, err)
			continue
		}
		if e, ok := errors.AsType[*muster.Error](err); ok && (len(e.Fields) != 1 || e.Fields[0].Pointer != c.at) {
			t.Errorf("%s: fields %v, want one at %s", c.name, e.Fields, c.at)
		}
	}
}

// TestSettingsJSON holds the names on the wire, and that what a body leaves out
// keeps its default.
func TestSettingsJSON(t *testing.T) {
	t.Parallel()
	s := muster.DefaultSettings()
	if err := json.Unmarshal([]byte(`{"strategy":"ewma","panic_threshold":0,"slow_start":"30s","protect":false}`), &s); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"strategy":"ewma","panic_threshold":0,"zone_threshold":70,"max_ejected":50,"consecutive_failures":5,` +
		`"failure_rate":33,"ejection_time":"10s","slow_start":"30s","load_factor":125,"protect":false}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}

func TestFilteredViewKeepsSettings(t *testing.T) {
	t.Parallel()
	s := muster.DefaultSettings()
	v := &muster.View{Service: "web", Instances: []*muster.Instance{{ID: "a"}, {ID: "b"}}, Settings: &s}
	f := v.Filtered(func(i *muster.Instance) bool { return i.ID == "a" })
	if f.Settings != &s || !f.Partial() || v.Partial() {
		t.Errorf("got settings %p partial %v, want %p and true; the whole view is partial: %v", f.Settings, f.Partial(), &s, v.Partial())
	}
}
