package fsm_test

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
)

var rewrite = flag.Bool("rewrite", false, "write the transcripts in testdata anew")

// TestTranscripts plays each file of testdata: a line is a verb and its
// arguments, and below ---- stands what it printed. A blank line ends it. Run with
// -rewrite after a change that is meant, and read the diff.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { playFile(t, file) })
	}
}

func playFile(t *testing.T, file string) {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p := &player{machine: newMachine(t), backups: map[string][]byte{}, names: map[string]muster.LeaseID{}}
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(string(b)), "\n\n") {
		input, _, _ := strings.Cut(block, "\n----")
		out.WriteString(input + "\n")
		printed := ""
		for line := range strings.SplitSeq(input, "\n") {
			if !strings.HasPrefix(line, "#") && line != "" {
				printed += p.play(line)
			}
		}
		if printed != "" {
			out.WriteString("----\n" + printed)
		}
		out.WriteString("\n")
	}
	got := strings.TrimSpace(out.String()) + "\n"
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != string(b) {
		t.Errorf("%s differs; got:\n%s", file, got)
	}
}

// player runs the verbs of a transcript.
type player struct {
	*machine
	backups map[string][]byte
	names   map[string]muster.LeaseID
}

// args are the words after the verb: key=value, or bare.
type args struct {
	bare []string
	set  map[string]string
}

func (a args) has(k string) bool { _, ok := a.set[k]; return ok }

func (a args) uint(k string) uint64 {
	n, err := strconv.ParseUint(a.set[k], 10, 64)
	if a.has(k) && err != nil {
		panic(err)
	}
	return n
}

func (a args) condition() muster.Condition {
	c := muster.Condition{Absent: a.has("absent")}
	if a.has("if") {
		c.ModifyIndex, c.Place, _ = muster.ParseETag(a.set["if"])
	}
	return c
}

func (a args) caller() muster.Caller {
	return muster.Caller{Actor: a.set["by"], Reason: a.set["reason"]}
}

func (a args) key() muster.InstanceKey {
	service, id, _ := strings.Cut(a.bare[0], "/")
	return key(service, id)
}

func (p *player) play(line string) string {
	words := strings.Fields(line)
	a := args{set: map[string]string{}}
	for _, w := range words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			a.set[k] = v
		} else {
			a.bare = append(a.bare, w)
		}
	}
	if op := p.op(words[0], a); op != nil {
		return p.outcome(words[0], a, op)
	}
	switch words[0] {
	case "term":
		p.term = a.uint("to")
	case "wait":
		d, _ := time.ParseDuration(a.bare[0])
		p.now = p.now.Add(d)
	case "view":
		return p.view(a.bare[0])
	case "services":
		all, index, _ := p.fsm.Services("", "")
		s := fmt.Sprintf("services at %d\n", index)
		for _, v := range all {
			s += fmt.Sprintf("  %s %d of %d routable, at %d\n", v.Service, v.Routable, v.Instances, v.Index)
		}
		return s
	case "lease":
		return p.lease(a.bare[0])
	case "events":
		q := muster.EventQuery{Namespace: "default", Since: a.uint("since"), Limit: 100}
		if len(a.bare) > 0 {
			q.Service, q.Instance, _ = strings.Cut(a.bare[0], "/")
		}
		s := ""
		for _, e := range p.fsm.Events(q).Events {
			s += "  " + describeEvent(e) + "\n"
		}
		return s
	case "index":
		return fmt.Sprintf("index %d floor %d cluster %s\n", p.fsm.Index(), p.fsm.Floor(), p.fsm.ClusterID())
	case "governor":
		g := p.fsm.Governor()
		return fmt.Sprintf("governor on %t, holds %d, by %q for %q\n", p.fsm.GovernorOn(), g.Suspects, g.Actor, g.Reason)
	case "save":
		p.backups[a.bare[0]] = snapshotOf(p.t, p.fsm)
	case "load":
		p.fsm = reload(p.t, p.backups[a.bare[0]])
		p.next = 100
	default:
		panic("no verb " + line)
	}
	return ""
}

// op makes the operation of a verb; nil where the verb is none.
func (p *player) op(verb string, a args) fsm.Op {
	switch verb {
	case "register":
		return fsm.Register{Instance: p.instance(a), Cond: a.condition(), Caller: a.caller()}
	case "deregister":
		return fsm.Deregister{Key: a.key(), Incarnation: a.uint("inc"), Cond: a.condition(), Caller: a.caller()}
	case "expire":
		return fsm.Expire{Term: p.deciding(a), Leases: p.leases(a), Released: a.has("released"), Caller: a.caller()}
	case "suspect":
		return fsm.Suspect{Term: p.deciding(a), Leases: p.leases(a), Reason: "mass_loss", Caller: a.caller()}
	case "release":
		var ids []muster.LeaseID
		for _, l := range p.leases(a) {
			ids = append(ids, l.ID)
		}
		return fsm.Release{Term: p.deciding(a), Leases: ids, Caller: a.caller()}
	case "reap":
		return fsm.Reap{Term: p.deciding(a), Targets: []fsm.ReapTarget{{Key: a.key(), ModifyIndex: a.uint("modify")}}}
	case "override":
		return fsm.SetOverride{Key: a.key(), Caller: a.caller(), Override: muster.Override{
			Status: muster.Status(a.bare[1]), Reason: a.set["reason"], Until: p.until(a),
		}}
	case "clear":
		return fsm.ClearOverride{Key: a.key(), Term: a.uint("term"), Until: p.until(a), Caller: a.caller()}
	case "grant":
		ttl, _ := time.ParseDuration(a.set["ttl"])
		return fsm.GrantLease{TTL: muster.TTL(ttl), Name: a.bare[0], Caller: a.caller()}
	case "revoke":
		return fsm.RevokeLease{ID: p.leaseID(a.bare[0]), Caller: a.caller()}
	case "configure":
		s := muster.DefaultSettings()
		s.Strategy, s.PanicThreshold, s.Protect = a.set["strategy"], int(a.uint("panic")), !a.has("unprotected")
		return fsm.Configure{Key: muster.ServiceKey{Namespace: "default", Service: a.bare[0]}, Settings: &s, Caller: a.caller()}
	case "unconfigure":
		return fsm.Configure{Key: muster.ServiceKey{Namespace: "default", Service: a.bare[0]}, Caller: a.caller()}
	case "switch":
		return fsm.SwitchGovernor{On: a.bare[0] == "on", Caller: a.caller()}
	case "judge":
		v := fsm.Verdict{Key: a.key(), Life: a.uint("life"), HeldUntil: p.until(a)}
		if i := p.find(v.Key); i != nil && !a.has("life") {
			v.Life = i.ChecksFrom
		}
		for _, s := range a.bare[1:] {
			c := muster.CheckState{Status: muster.Status(s), Contested: a.has("contested"), Latency: muster.Duration(time.Millisecond)}
			if s == "down" {
				c.Cause, c.Output = muster.CheckCause(a.set["cause"]), a.set["output"]
			}
			v.Checks = append(v.Checks, c)
		}
		return fsm.Judge{Term: p.deciding(a), Verdicts: []fsm.Verdict{v}, Caller: a.caller()}
	case "epoch":
		return fsm.Epoch{ClusterID: a.set["cluster"]}
	case "member":
		return fsm.Member{ID: a.bare[0], Boot: a.uint("boot"), Removed: a.has("removed")}
	case "begin":
		return fsm.RestoreBegin{ID: a.set["id"], Total: uint64(len(p.backups[a.bare[0]])), Caller: a.caller()}
	case "chunk":
		b := p.backups[a.bare[0]]
		from, to := a.uint("from"), a.uint("to")
		if to == 0 {
			to = uint64(len(b))
		}
		return fsm.RestoreChunk{ID: a.set["id"], Offset: from, Data: b[from:to]}
	case "commit":
		return fsm.RestoreCommit{ID: a.set["id"], SHA256: sha256.Sum256(p.backups[a.bare[0]]), Caller: a.caller()}
	case "abort":
		return fsm.RestoreAbort{ID: a.set["id"]}
	}
	return nil
}

func (p *player) instance(a args) *muster.Instance {
	k := a.key()
	return with(&muster.Instance{Namespace: k.Namespace, Service: k.Service, ID: k.ID, Address: "10.0.0.1", Port: 80, Weight: 100}, func(i *muster.Instance) {
		i.Incarnation, i.Version = a.uint("inc"), a.set["v"]
		if a.has("weight") {
			i.Weight = int(a.uint("weight"))
		}
		if a.has("ttl") {
			i.TTL, _ = muster.ParseTTL(a.set["ttl"])
		}
		if a.has("lease") {
			i.LeaseID = p.leaseID(a.set["lease"])
		}
		if a.has("down") {
			i.OnExpiry = muster.ExpiryDown
		}
		if a.has("check") {
			for path := range strings.SplitSeq(a.set["check"], ",") {
				i.Checks = append(i.Checks, muster.Check{Type: muster.CheckHTTP, Path: path})
			}
		}
	})
}

func (p *player) find(k muster.InstanceKey) *muster.Instance {
	if v := p.fsm.View(muster.ServiceKey{Namespace: k.Namespace, Service: k.Service}); v != nil {
		return v.Find(k.ID)
	}
	return nil
}

// leaseID takes a lease's id, the name of a granted one, or an instance whose
// own it is.
func (p *player) leaseID(s string) muster.LeaseID {
	if id, ok := p.names[s]; ok {
		return id
	}
	if service, id, ok := strings.Cut(s, "/"); ok {
		l, _ := p.fsm.LeaseOf(key(service, id))
		return l
	}
	id, err := muster.ParseLeaseID(s)
	if err != nil {
		panic(err)
	}
	return id
}

func (p *player) leases(a args) []fsm.LeaseGen {
	var all []fsm.LeaseGen
	for _, s := range a.bare {
		id := p.leaseID(s)
		gen := a.uint("gen")
		if l, ok := p.fsm.Lease(id); ok && gen == 0 {
			gen = l.Generation
		}
		all = append(all, fsm.LeaseGen{ID: id, Generation: gen})
	}
	return all
}

func (p *player) deciding(a args) uint64 {
	if a.has("term") {
		return a.uint("term")
	}
	return p.term
}

func (p *player) until(a args) time.Time {
	if !a.has("until") {
		return time.Time{}
	}
	d, _ := time.ParseDuration(a.set["until"])
	return epoch2026.Add(d)
}

func (p *player) outcome(verb string, a args, op fsm.Op) string {
	if verb == "epoch" {
		b, err := p.raw(op)[0].AppendBinary(nil)
		return fmt.Sprintf("%d: term %x %v\n", p.next-1, b, err)
	}
	r := p.do(op)
	if verb == "grant" && r.Lease != nil {
		p.names[a.bare[0]] = r.Lease.ID
	}
	s := fmt.Sprintf("%d:", r.Index)
	for word, is := range map[string]bool{" created": r.Created, " changed": r.Changed && !r.Created, " dropped": r.Dropped} {
		if is {
			s += word
		}
	}
	if r.Err != nil {
		s += " " + r.Err.Error()
	} else if !r.Changed && !r.Dropped {
		s += " unchanged"
	}
	for _, o := range r.Outcomes {
		s += " " + [...]string{"done", "skipped", "gone"}[o]
	}
	if r.Lease != nil {
		s += fmt.Sprintf(" lease %s %q ttl %s holds %d", r.Lease.ID, r.Lease.Name, r.Lease.TTL, len(r.Lease.Instances))
	}
	return s + "\n"
}

func (p *player) view(service string) string {
	v := p.fsm.View(muster.ServiceKey{Namespace: "default", Service: service})
	if v == nil {
		return fmt.Sprintf("%s: unknown, floor %d\n", service, p.fsm.Floor())
	}
	s := fmt.Sprintf("%s at %d", service, v.Index)
	if v.Protected {
		s += " protected"
	}
	if v.EmptyReason != "" {
		s += " empty: " + string(v.EmptyReason)
	}
	if c := v.Settings; c != nil {
		s += fmt.Sprintf(" %s panic %d protect %t load %d", c.Strategy, c.PanicThreshold, c.Protect, c.LoadFactor)
	}
	s += "\n"
	for _, i := range v.Instances {
		s += "  " + describe(i) + "\n"
	}
	return s
}

func describe(i *muster.Instance) string {
	s := fmt.Sprintf("%s inc %d %s (%s, %s)", i.ID, i.Incarnation, i.Status, i.StatusCause, i.StatusSince.Sub(epoch2026))
	if i.Version != "" {
		s += " v" + i.Version
	}
	if !i.Routable {
		s += " unroutable"
	}
	if i.Suspect {
		s += fmt.Sprintf(" suspect (%s, %s)", i.SuspectReason, i.SuspectSince.Sub(epoch2026))
	}
	if i.Override != nil {
		s += " override by " + i.Override.Actor
		if !i.Override.Until.IsZero() {
			s += fmt.Sprintf(" until %s", i.Override.Until.Sub(epoch2026))
		}
	}
	if i.TTL != 0 {
		s += " ttl " + i.TTL.String()
	}
	if i.LeaseID != 0 {
		s += " lease " + i.LeaseID.String()
	}
	if i.ChecksFrom != 0 {
		s += fmt.Sprintf(" checks of %d", i.ChecksFrom)
	}
	for _, c := range i.Checks {
		s += fmt.Sprintf(" %s %s since %s", c.Name, c.Status, c.Since.Sub(epoch2026))
		if c.Cause != "" {
			s += fmt.Sprintf(" (%s: %s)", c.Cause, c.Output)
		}
		if c.Contested {
			s += " contested"
		}
	}
	if !i.HeldUntil.IsZero() {
		s += fmt.Sprintf(" held until %s", i.HeldUntil.Sub(epoch2026))
	}
	return s + fmt.Sprintf(" created %d modified %s registered %s", i.CreateIndex, i.ETag(), i.RegisteredAt.Sub(epoch2026))
}

func (p *player) lease(s string) string {
	id := p.leaseID(s)
	l, ok := p.fsm.Lease(id)
	if !ok {
		return fmt.Sprintf("lease %s: unknown\n", id)
	}
	holds := []string{}
	for _, k := range l.Instances {
		holds = append(holds, k.Service+"/"+k.ID)
	}
	return fmt.Sprintf("lease %s ttl %s generation %d shared %t holds %s\n", l.ID, l.TTL, l.Generation, l.Shared, strings.Join(holds, " "))
}

// TestTranscriptVerbsAreUsed keeps the harness from growing verbs that no file plays.
func TestTranscriptVerbsAreUsed(t *testing.T) {
	want := map[string]bool{}
	for _, v := range strings.Fields("register deregister expire suspect release reap override clear grant revoke judge epoch member " +
		"begin chunk commit abort term wait view services lease events index save load") {
		want[v] = true
	}
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			delete(want, strings.TrimSpace(strings.SplitN(line, " ", 2)[0]))
		}
	}
	if len(want) > 0 {
		t.Errorf("no transcript plays %v", slices.Sorted(maps.Keys(want)))
	}
}
