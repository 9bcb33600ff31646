package fsm

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/wire"
)

// maxSettings bounds the services that have settings of their own.
const maxSettings = 10_000

func (o *Configure) apply(s *state, at step) result {
	if err := s.busy(); err != nil {
		return reject(at, err)
	}
	old := s.settings[o.Key]
	switch {
	case old == nil && o.Settings == nil, old != nil && o.Settings != nil && *old == *o.Settings:
		return result{index: at.index}
	case old == nil && len(s.settings) >= maxSettings:
		return reject(at, muster.Errorf(muster.CodeQuotaExceeded, "%d services have settings of their own, the most that may", maxSettings).
			WithHint("remove those of services that are no more"))
	}
	s.settings = maps.Clone(s.settings) // a snapshot may hold the old one
	e := &muster.Event{
		Index: at.index, Time: at.now, Type: muster.EventSettings, Cause: muster.CauseConfigured,
		Namespace: o.Key.Namespace, Service: o.Key.Service, Actor: o.Caller.Actor, Reason: o.Caller.Reason,
	}
	if o.Settings != nil {
		s.settings[o.Key] = o.Settings
	} else {
		delete(s.settings, o.Key)
		e.Cause = muster.CauseUnconfigured
	}
	if svc := s.dir.find(o.Key); svc != nil {
		svc.settings = o.Settings
		if svc.known {
			s.show(svc, at)
		}
	}
	s.tell(e, func(told *muster.Event) { told.Settings = o.Settings })
	return result{index: at.index, changed: true}
}

// unveil tells the listeners of the settings that a service had before its first
// instance came: whoever follows changes has not seen a view with them yet. The
// journal has known them since they were made.
func (s *state) unveil(svc *service, at step) {
	if s.out.listen && !s.out.reset {
		s.out.events = append(s.out.events, &muster.Event{
			Index: at.index, Time: at.now, Type: muster.EventSettings, Cause: muster.CauseConfigured,
			Namespace: svc.key.Namespace, Service: svc.key.Service, Settings: svc.settings,
		})
	}
}

// Settings returns the settings that a service has of its own; nil where it has
// none and the defaults hold.
func (f *FSM) Settings(k muster.ServiceKey) *muster.Settings {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.st.settings[k]
}

// governor is the switch of the expiry governor. Its zero value is on, since ever.
type governor struct {
	off    bool
	since  int64 // unix milliseconds; 0: it was never switched
	actor  string
	reason string
}

func (o *SwitchGovernor) apply(s *state, at step) result {
	if err := s.busy(); err != nil {
		return reject(at, err)
	}
	if s.governor.off == !o.On {
		return result{index: at.index}
	}
	s.governor = governor{off: !o.On, since: toMillis(at.now), actor: o.Caller.Actor, reason: o.Caller.Reason}
	return result{index: at.index, changed: true}
}

// Governor returns the state of the expiry governor's switch, and how many
// instances it holds.
func (f *FSM) Governor() muster.Governor {
	f.mu.RLock()
	g := f.st.governor
	f.mu.RUnlock()
	shown := muster.Governor{Enabled: !g.off, Since: fromMillis(g.since), Actor: g.actor, Reason: g.reason}
	for v := range f.Views() {
		if !v.Protected {
			continue
		}
		for _, i := range v.Instances {
			if i.Suspect {
				shown.Suspects++
			}
		}
	}
	shown.Active = shown.Suspects > 0
	return shown
}

// GovernorOn reports whether the expiry governor is on for the whole cluster.
func (f *FSM) GovernorOn() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return !f.st.governor.off
}

func (g governor) append(b []byte) []byte {
	b = wire.AppendUint(wire.AppendBool(b, 1, g.off), 2, uint64(g.since))
	return wire.AppendString(wire.AppendString(b, 3, g.actor), 4, g.reason)
}

func readGovernor(d *decoder) (g governor) {
	in := d.message()
	for in.Next() {
		switch in.Num {
		case 1:
			g.off = in.bool()
		case 2:
			g.since = int64(in.uint(maxMillis))
		case 3:
			g.actor = in.str()
		case 4:
			g.reason = in.str()
		}
	}
	d.nested(&in)
	return g
}

func (p *picture) writeSettings(fw *frameWriter) {
	for _, k := range slices.SortedFunc(maps.Keys(p.settings), muster.ServiceKey.Compare) {
		fw.record(blockSettings, func(b []byte) []byte {
			b = wire.AppendString(wire.AppendString(b, 1, k.Namespace), 2, k.Service)
			return appendMessage(b, 3, func(b []byte) []byte { return appendSettings(b, p.settings[k]) })
		})
	}
}

// The fields of settings.
const (
	settingStrategy wire.Number = iota + 1
	settingPanicThreshold
	settingZoneThreshold
	settingMaxEjected
	settingConsecutiveFailures
	settingFailureRate
	settingEjectionTime
	settingSlowStart
	settingLoadFactor
	settingProtect
)

// appendSettings writes every number, a zero too: what is absent is a field that
// the writer did not know, and has its default.
func appendSettings(b []byte, v *muster.Settings) []byte {
	whole := func(num wire.Number, n uint64) {
		b = protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), n)
	}
	b = wire.AppendString(b, settingStrategy, v.Strategy)
	whole(settingPanicThreshold, uint64(max(v.PanicThreshold, 0)))
	whole(settingZoneThreshold, uint64(max(v.ZoneThreshold, 0)))
	whole(settingMaxEjected, uint64(max(v.MaxEjected, 0)))
	whole(settingConsecutiveFailures, uint64(max(v.ConsecutiveFailures, 0)))
	whole(settingFailureRate, uint64(max(v.FailureRate, 0)))
	whole(settingEjectionTime, uint64(max(v.EjectionTime, 0)))
	whole(settingSlowStart, uint64(max(v.SlowStart, 0)))
	whole(settingLoadFactor, uint64(max(v.LoadFactor, 0)))
	whole(settingProtect, protowire.EncodeBool(v.Protect))
	return b
}

func readSettings(d *decoder) *muster.Settings {
	v := muster.DefaultSettings()
	in := d.message()
	span := func() muster.Duration { return muster.Duration(time.Duration(in.span())) }
	for in.Next() {
		switch in.Num {
		case settingStrategy:
			v.Strategy = in.str()
		case settingPanicThreshold:
			v.PanicThreshold = in.int()
		case settingZoneThreshold:
			v.ZoneThreshold = in.int()
		case settingMaxEjected:
			v.MaxEjected = in.int()
		case settingConsecutiveFailures:
			v.ConsecutiveFailures = in.int()
		case settingFailureRate:
			v.FailureRate = in.int()
		case settingEjectionTime:
			v.EjectionTime = span()
		case settingSlowStart:
			v.SlowStart = span()
		case settingLoadFactor:
			v.LoadFactor = in.int()
		case settingProtect:
			v.Protect = in.bool()
		}
	}
	d.nested(&in)
	return &v
}
