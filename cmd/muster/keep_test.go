package main

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestRunSurvivesTheLeader: what muster run and register --keep keep registered does
// not go, and is not even registered anew, when the node they speak to and the leader
// are killed.
func TestRunSurvivesTheLeader(t *testing.T) {
	nodes := newCluster(t, 3)
	var addrs []string
	for _, p := range nodes {
		p.start()
		addrs = append(addrs, p.url)
	}
	for _, p := range nodes {
		p.waitReady("?require=leader")
	}
	kept := []*process{
		{t: t, url: "muster run", args: []string{
			"run", "web", "--id", "ran", "--port", "8080", "--ttl", "5s", "--drain", "0s", "--addr", strings.Join(addrs, ","), "--", "sh", "-c", "while :; do sleep 0.1; done"}},
		{t: t, url: "muster register --keep", args: []string{
			"register", "web", "--id", "kept", "--address", "10.0.0.5", "--port", "8080", "--ttl", "5s", "--keep", "--addr", strings.Join(addrs, ",")}},
	}
	for _, p := range kept {
		p.start()
		t.Cleanup(func() {
			p.signal(syscall.SIGTERM)
			p.wait()
			if t.Failed() {
				t.Logf("%s said:\n%s", p.url, p.log)
			}
		})
	}
	client := &http.Client{Timeout: 10 * time.Second}
	read := func(p *process, path string) string {
		_, text, err := request(t.Context(), client, "GET", p.url+path, "")
		if err != nil {
			return err.Error()
		}
		return text
	}
	both := func(p *process) bool {
		text := read(p, "/v1/services/web?routable=true")
		return strings.Contains(text, `"id":"ran"`) && strings.Contains(text, `"id":"kept"`)
	}
	waitFor(t, "both are registered", func() bool { return both(nodes[0]) })

	// Each node dies once, so the one that each of them speaks to does as well.
	for n := range nodes {
		victim := nodes[n]
		if n == 0 {
			victim = leaderOf(t, nodes)
		}
		victim.signal(syscall.SIGKILL)
		victim.wait()
		survivor := nodes[(n+1)%len(nodes)]
		if survivor == victim {
			survivor = nodes[(n+2)%len(nodes)]
		}
		survivor.waitReady("?require=leader")
		if !both(survivor) {
			t.Errorf("after %s was killed: %s", victim.url, read(survivor, "/v1/services/web"))
		}
		victim.start()
		for _, p := range nodes {
			p.waitReady("?require=leader")
		}
	}
	for _, p := range kept {
		p.signal(syscall.SIGTERM)
	}
	waitFor(t, "both are gone", func() bool {
		return strings.Contains(read(nodes[0], "/v1/services/web"), `"empty_reason":"deregistered"`)
	})
	events := read(nodes[0], "/v1/events?service=web")
	if n := strings.Count(events, `"type":"registered"`); n != 2 || strings.Contains(events, "expired") {
		t.Errorf("got %d registrations, want 2 and no expiry:\n%s", n, events)
	}
	for n, want := range []int{exitSignal + int(syscall.SIGTERM), exitOK} {
		if code := kept[n].wait(); code != want {
			t.Errorf("%s ended with %d, want %d\n%s", kept[n].url, code, want, kept[n].log)
		}
	}
}

// TestEndpointID: an id that every registry takes is made of every address.
func TestEndpointID(t *testing.T) {
	for address, want := range map[string]string{"10.0.0.5": "10.0.0.5:80", "::1": "1:80", "2001:db8::5": "2001:db8::5:80", "web-1.local": "web-1.local:80"} {
		flags := instanceFlags{}
		flags.inst.Address, flags.inst.Port = address, 80
		inst, err := flags.instance("web")
		if err != nil {
			t.Fatal(err)
		}
		inst.ID = endpointID(&inst)
		if err := inst.Normalize(); err != nil || inst.ID != want {
			t.Errorf("%s: got %q (%v), want %q", address, inst.ID, err, want)
		}
	}
}

// TestInstanceEnv: what a command is told of an instance is no flag of a muster that
// it calls.
func TestInstanceEnv(t *testing.T) {
	flags := flagNames(newRoot())
	if !flags["address"] || !flags["port"] {
		t.Fatalf("the names of the flags are not known: %v", flags)
	}
	taken := map[string]bool{}
	for name := range flags {
		taken[envName(name)] = true
	}
	inst, err := (&instanceFlags{}).instance("web")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"SELF", "PICKED"} {
		for _, kv := range instanceEnv(kind, &inst) {
			if name, _, ok := strings.Cut(kv, "="); !ok || taken[name] {
				t.Errorf("%s is also the variable of a flag", name)
			}
		}
	}
}
