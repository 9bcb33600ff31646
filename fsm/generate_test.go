package fsm_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
)

// generator draws operations that make sense in the state of a machine, and some
// that do not.
type generator struct {
	*machine
	rt      *rapid.T
	backups [][]byte
	restore string // id of the restore that is under way
	sent    int
	from    []byte
}

// newGenerator starts the log at 2, as raft does: its first entry is always a
// configuration.
func newGenerator(m *machine, rt *rapid.T) *generator {
	m.next = 2
	return &generator{machine: m, rt: rt}
}

func (g *generator) pick(label string, of ...string) string {
	return rapid.SampledFrom(of).Draw(g.rt, label)
}

func (g *generator) yes(label string, oneIn int) bool {
	return rapid.IntRange(1, oneIn).Draw(g.rt, label) == 1
}

func (g *generator) key() muster.InstanceKey {
	return muster.InstanceKey{
		Namespace: g.pick("namespace", "default", "default", "other"),
		Service:   g.pick("service", "web", "db", "api"),
		ID:        g.pick("id", "a", "b", "c", "d"),
	}
}

func (g *generator) caller() muster.Caller {
	return muster.Caller{Actor: g.pick("actor", "", "ip:10.0.0.9", "node:n1"), Reason: g.pick("reason", "", "test")}
}

func (g *generator) condition() muster.Condition {
	switch rapid.IntRange(0, 9).Draw(g.rt, "condition") {
	case 0:
		return muster.Condition{Absent: true}
	case 1:
		return muster.Condition{ModifyIndex: rapid.Uint64Range(1, g.next).Draw(g.rt, "modify"), Place: rapid.IntRange(-1, 2).Draw(g.rt, "place")}
	}
	return muster.Condition{}
}

// leases are the leases there are, in order.
func (g *generator) leases() []fsm.LeaseRecord {
	return slices.SortedFunc(g.fsm.Leases, func(a, b fsm.LeaseRecord) int { return int(int64(a.ID) - int64(b.ID)) })
}

func (g *generator) leaseGens() []fsm.LeaseGen {
	var all []fsm.LeaseGen
	for _, l := range g.leases() {
		if g.yes("take lease", 3) {
			gen := l.Generation
			if g.yes("old generation", 5) && gen > 0 {
				gen--
			}
			all = append(all, fsm.LeaseGen{ID: l.ID, Generation: gen})
		}
	}
	if g.yes("unknown lease", 6) {
		all = append(all, fsm.LeaseGen{ID: muster.MakeLeaseID(1, 2047), Generation: 1})
	}
	return all
}

func (g *generator) deciding() uint64 {
	if g.yes("old term", 8) {
		return g.term - 1
	}
	return g.term
}

func (g *generator) instance() *muster.Instance {
	k := g.key()
	i := &muster.Instance{
		Namespace: k.Namespace, Service: k.Service, ID: k.ID, Address: g.pick("address", "10.0.0.1", "10.0.0.2"), Port: 80,
		Weight: rapid.SampledFrom([]int{0, 100, 100}).Draw(g.rt, "weight"), Version: g.pick("version", "", "1"),
		Incarnation: rapid.SampledFrom([]uint64{0, 0, 0, 1, 2, 3, 4, 5}).Draw(g.rt, "incarnation"),
	}
	if g.yes("meta", 3) {
		i.Meta = map[string]string{"team": "pay", "tier": g.pick("tier", "1", "2")}
		i.Tags = []string{"canary", "x"}
		i.Ports = map[string]int{"metrics": 9100, "admin": 9200}
	}
	if g.yes("checks", 2) {
		i.Checks = []muster.Check{{Type: muster.CheckHTTP, Path: g.pick("path", "/health", "/other")}, {Type: muster.CheckTCP}}
	}
	if g.yes("down", 3) {
		i.OnExpiry = muster.ExpiryDown
	}
	switch ttl := g.pick("ttl", "none", "5s", "10s", "shared", "both"); ttl {
	case "none":
		i.TTL = muster.NoTTL
	case "shared", "both":
		for _, l := range g.leases() {
			if l.Shared && (i.LeaseID == 0 || g.yes("another lease", 2)) {
				i.LeaseID = l.ID
			}
		}
		if ttl == "both" {
			i.TTL = muster.TTL(5 * time.Second)
		}
	default:
		d, _ := time.ParseDuration(ttl)
		i.TTL = muster.TTL(d)
	}
	if err := i.Normalize(); err != nil {
		g.rt.Fatalf("Normalize: %v", err)
	}
	return i
}

// op draws one operation.
func (g *generator) op() fsm.Op {
	switch rapid.IntRange(0, 22).Draw(g.rt, "kind") {
	case 12, 13, 14:
		return g.judge()
	case 0, 1, 2:
		return fsm.Deregister{Key: g.key(), Incarnation: rapid.Uint64Range(0, 5).Draw(g.rt, "incarnation"), Cond: g.condition(), Caller: g.caller()}
	case 3, 4:
		return fsm.Expire{Term: g.deciding(), Leases: g.leaseGens(), Released: g.yes("released", 4), Caller: g.caller()}
	case 5:
		return fsm.Suspect{Term: g.deciding(), Leases: g.leaseGens(), Reason: "mass loss", Caller: g.caller()}
	case 6:
		var ids []muster.LeaseID
		for _, l := range g.leaseGens() {
			ids = append(ids, l.ID)
		}
		return fsm.Release{Term: g.deciding(), Leases: ids, Caller: g.caller()}
	case 7:
		return fsm.SetOverride{Key: g.key(), Caller: g.caller(), Override: muster.Override{
			Status: muster.Status(g.pick("override", "maintenance", "draining")), Until: g.until(),
		}}
	case 8:
		return fsm.ClearOverride{Key: g.key(), Term: rapid.SampledFrom([]uint64{0, g.term}).Draw(g.rt, "term"), Until: g.until(), Caller: g.caller()}
	case 9:
		return fsm.GrantLease{TTL: muster.TTL(10 * time.Second), Name: g.pick("name", "", "host-7"), Caller: g.caller()}
	case 10:
		return g.rare()
	case 11:
		return g.reap()
	}
	return fsm.Register{Instance: g.instance(), Cond: g.condition(), Caller: g.caller()}
}

// judge draws verdicts on the instances there are, and on some that are not.
func (g *generator) judge() fsm.Op {
	o := fsm.Judge{Term: g.deciding(), Caller: g.caller()}
	for v := range g.fsm.Views() {
		for _, i := range v.Instances {
			if g.yes("no verdict", 2) {
				continue
			}
			verdict := fsm.Verdict{Key: muster.InstanceKey{Namespace: i.Namespace, Service: i.Service, ID: i.ID}, Life: i.ChecksFrom}
			if g.yes("an earlier life", 6) && i.ChecksFrom > 0 {
				verdict.Life--
			}
			for range i.Checks {
				verdict.Checks = append(verdict.Checks, muster.CheckState{
					Status: muster.Status(g.pick("check", "up", "down")), Cause: muster.CheckCause(g.pick("cause", "", "timeout")),
					Output: g.pick("output", "", "503"), Contested: g.yes("contested", 4), Latency: muster.Duration(time.Millisecond),
				})
			}
			if g.yes("flapping", 4) {
				verdict.HeldUntil = epoch2026.Add(time.Hour)
			}
			o.Verdicts = append(o.Verdicts, verdict)
		}
	}
	if g.yes("unknown instance", 6) {
		o.Verdicts = append(o.Verdicts, fsm.Verdict{Key: g.key()})
	}
	return o
}

func (g *generator) until() time.Time {
	if g.yes("until", 2) {
		return epoch2026.Add(time.Hour)
	}
	return time.Time{}
}

func (g *generator) reap() fsm.Op {
	o := fsm.Reap{Term: g.deciding(), Caller: g.caller()}
	for v := range g.fsm.Views() {
		for _, i := range v.Instances {
			if fsm.Expired(i) || g.yes("reap a live one", 5) {
				o.Targets = append(o.Targets, fsm.ReapTarget{
					Key: muster.InstanceKey{Namespace: i.Namespace, Service: i.Service, ID: i.ID}, ModifyIndex: i.ModifyIndex,
				})
			}
		}
	}
	return o
}

func (g *generator) rare() fsm.Op {
	switch rapid.IntRange(0, 7).Draw(g.rt, "rare") {
	case 0:
		g.term++
		return fsm.Epoch{ClusterID: g.pick("cluster", "c1", "c2")}
	case 1:
		return fsm.Member{ID: g.pick("member", "n1", "n2"), Boot: rapid.Uint64Range(1, 9).Draw(g.rt, "boot"), Removed: g.yes("removed", 5)}
	case 2:
		if all := g.leases(); len(all) > 0 {
			return fsm.RevokeLease{ID: rapid.SampledFrom(all).Draw(g.rt, "lease").ID, Caller: g.caller()}
		}
	case 4:
		return fsm.SwitchGovernor{On: g.yes("governor", 2), Caller: g.caller()}
	case 5:
		o := fsm.Configure{Key: muster.ServiceKey{Namespace: "default", Service: g.pick("service", "web", "db", "never")}, Caller: g.caller()}
		if g.yes("settings", 2) {
			s := muster.DefaultSettings()
			s.PanicThreshold, s.Protect = rapid.IntRange(0, 1).Draw(g.rt, "panic"), g.yes("protect", 2)
			o.Settings = &s
		}
		return o
	case 3:
		g.backups = append(g.backups, snapshotOf(g.t, g.fsm))
	}
	return g.restoring()
}

// restoring draws the next step of a restore.
func (g *generator) restoring() fsm.Op {
	if len(g.backups) == 0 {
		g.backups = append(g.backups, snapshotOf(g.t, g.fsm))
	}
	switch {
	case g.restore == "":
		g.from = rapid.SampledFrom(g.backups).Draw(g.rt, "backup")
		g.restore, g.sent = fmt.Sprintf("r%d", g.next), 0
		return fsm.RestoreBegin{ID: g.restore, Total: uint64(len(g.from)), Caller: g.caller()}
	case g.sent < len(g.from):
		n := min(rapid.IntRange(200, 100_000).Draw(g.rt, "chunk"), len(g.from)-g.sent)
		o := fsm.RestoreChunk{ID: g.restore, Offset: uint64(g.sent), Data: bytes.Clone(g.from[g.sent : g.sent+n])}
		g.sent += n
		return o
	}
	o := fsm.RestoreCommit{ID: g.restore, SHA256: sha256.Sum256(g.from), Caller: g.caller()}
	g.restore = ""
	return o
}

// step applies one entry of a few operations, with time going on.
func (g *generator) step() []fsm.Result {
	g.now = g.now.Add(time.Duration(rapid.IntRange(-500, 3000).Draw(g.rt, "ms")) * time.Millisecond)
	ops := make([]fsm.Op, rapid.IntRange(1, 4).Draw(g.rt, "ops"))
	for n := range ops {
		ops[n] = g.op()
	}
	if g.restore != "" && g.yes("hurry the restore", 2) {
		ops = append(ops, g.restoring())
	}
	var results []fsm.Result
	for n, r := range g.raw(ops...) {
		if _, epoch := ops[n].(fsm.Epoch); !epoch {
			results = append(results, decoded(g.t, r))
		}
	}
	return results
}

// pictureOf is what readers see of all services.
func pictureOf(f *fsm.FSM) map[muster.ServiceKey]*muster.View {
	return maps.Collect(func(yield func(muster.ServiceKey, *muster.View) bool) {
		for v := range f.Views() {
			if !yield(v.Key(), v) {
				return
			}
		}
	})
}
