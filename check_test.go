package muster_test

import (
	"strings"
	"testing"

	"github.com/muster-registry/muster"
)

func TestWorstCheck(t *testing.T) {
	for statuses, want := range map[string]muster.Status{
		"": muster.StatusUp, "up": muster.StatusUp, "up up": muster.StatusUp, "up unknown": muster.StatusUnknown,
		"unknown down": muster.StatusDown, "down up": muster.StatusDown, "none": muster.StatusUnknown,
	} {
		var checks []muster.Check
		for _, s := range strings.Fields(statuses) {
			checks = append(checks, muster.Check{CheckState: muster.CheckState{Status: muster.Status(s)}})
		}
		if got := muster.WorstCheck(checks); got != want {
			t.Errorf("%q: got %s, want %s", statuses, got, want)
		}
	}
}

// TestCheckStatesAreTheRegistrys: what an owner sends of them is dropped, and makes
// no difference between two registrations.
func TestCheckStatesAreTheRegistrys(t *testing.T) {
	with := func(s muster.CheckState, path string) *muster.Instance {
		i := &muster.Instance{Service: "web", ID: "w", Address: "10.0.0.1", Port: 80, Checks: []muster.Check{{Type: muster.CheckHTTP, Path: path, CheckState: s}}}
		if path == "/other" {
			return i
		}
		if err := i.Normalize(); err != nil {
			t.Fatal(err)
		}
		return i
	}
	a, b := with(muster.CheckState{Status: muster.StatusUp, Output: "x"}, "/"), with(muster.CheckState{}, "/")
	if a.Checks[0] != b.Checks[0] || !a.SameSpec(b) {
		t.Errorf("got %+v and %+v", a.Checks[0], b.Checks[0])
	}
	a.Checks[0].Status = muster.StatusDown
	if !a.SameSpec(b) || !muster.SameChecks(a.Checks, b.Checks) || muster.SameChecks(a.Checks, with(muster.CheckState{}, "/other").Checks) {
		t.Error("states count, or what is asked for does not")
	}
}

func TestChecksThatCannotPass(t *testing.T) {
	for _, c := range []muster.Check{
		{Type: muster.CheckService, Service: "WEB"},
		{Type: muster.CheckHTTP, Method: "HEAD", Contains: "ok"},
	} {
		i := &muster.Instance{Service: "web", ID: "w", Address: "10.0.0.1", Port: 80, Checks: []muster.Check{c}}
		if err := i.Normalize(); err == nil || err.(*muster.Error).Code != muster.CodeInvalidCheck {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}
