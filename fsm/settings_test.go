package fsm_test

import (
	"slices"
	"testing"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
)

// TestSettingsBeforeTheService: whoever follows changes is told of settings when
// they are made, and again with the first instance, whose view is the first to show
// them; the journal has them once.
func TestSettingsBeforeTheService(t *testing.T) {
	told := &recorder{}
	m := newMachine(t, told)
	k := muster.ServiceKey{Namespace: "default", Service: "web"}
	m.must(fsm.Configure{Key: k, Settings: sampleSettings()})
	check := func(what string, want ...muster.EventType) {
		t.Helper()
		var got []muster.EventType
		for _, e := range told.last(t).Entries {
			for _, ev := range e.Events {
				got = append(got, ev.Type)
				if ev.Type == muster.EventSettings && (ev.Settings == nil || *ev.Settings != *sampleSettings() || ev.Index != m.next-1) {
					t.Errorf("%s: told of settings %+v at %d", what, ev.Settings, ev.Index)
				}
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: told of %v, want %v", what, got, want)
		}
	}
	check("configured", muster.EventSettings)
	m.must(fsm.Register{Instance: web("a")})
	check("the first instance", muster.EventSettings, muster.EventRegistered)
	if v := m.fsm.View(k); v.Settings == nil || *v.Settings != *sampleSettings() {
		t.Errorf("the view shows %+v", v.Settings)
	}
	m.must(fsm.Register{Instance: web("b")})
	check("the second", muster.EventRegistered)
	m.must(fsm.Deregister{Key: key("web", "a")})
	m.must(fsm.Deregister{Key: key("web", "b")})
	m.must(fsm.Register{Instance: web("a")})
	check("after a while without", muster.EventRegistered)
	if e := m.fsm.Events(muster.EventQuery{Service: "web"}); len(e.Events) != 6 {
		t.Errorf("the journal has %d events", len(e.Events))
	}
}
