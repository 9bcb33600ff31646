package main

import (
	"testing"
	"time"

	"github.com/muster-registry/muster"
)

func TestChecksColumn(t *testing.T) {
	check := func(name string, s muster.CheckState) muster.Check { return muster.Check{Name: name, CheckState: s} }
	up := check("live", muster.CheckState{Status: muster.StatusUp})
	down := check("db", muster.CheckState{Status: muster.StatusDown, Cause: muster.CheckDependency})
	split := check("ready", muster.CheckState{Status: muster.StatusUp, Contested: true})
	for _, tc := range []struct {
		inst muster.Instance
		want string
	}{
		{muster.Instance{}, ""},
		{muster.Instance{Checks: []muster.Check{up}}, "1/1"},
		{muster.Instance{Checks: []muster.Check{up, down}}, "1/2, db down (dependency)"},
		{muster.Instance{Checks: []muster.Check{up, {Name: "new"}}}, "1/2, new unknown"},
		{muster.Instance{Checks: []muster.Check{split}}, "1/1, ready contested"},
		{muster.Instance{Checks: []muster.Check{up}, HeldUntil: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}, "1/1, held until 03:04:05"},
	} {
		if got := checksOf(&tc.inst); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}
