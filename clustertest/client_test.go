package clustertest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
	"github.com/muster-registry/muster/clustertest"
)

// newSDK makes a client of all nodes of c.
func newSDK(t testing.TB, c *clustertest.Cluster, change ...func(*client.Config)) *client.Client {
	t.Helper()
	var cfg client.Config
	for _, m := range c.Members {
		cfg.Addrs = append(cfg.Addrs, m.URL())
	}
	for _, f := range change {
		f(&cfg)
	}
	cl, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func webInstance(id string, ttl time.Duration) muster.Instance {
	return muster.Instance{Service: "web", ID: id, Address: "10.0.0.1", Port: 80, TTL: muster.TTL(ttl)}
}

// TestClientRoutes calls every route once, of real nodes.
func TestClientRoutes(t *testing.T) {
	c := clustertest.Start(t, 3)
	cl := newSDK(t, c)
	ctx := t.Context()
	ok := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	i := webInstance("web-1", time.Minute)
	w, err := cl.PutInstance(ctx, &i, client.Reason("first"), client.IfAbsent())
	if err != nil || !w.Created || !w.Changed || w.Instance.Weight != muster.DefaultWeight {
		t.Fatalf("put: %+v %v", w, err)
	}
	if _, err := cl.PutInstance(ctx, &i, client.IfAbsent()); !errors.Is(err, muster.CodePreconditionFailed) {
		t.Errorf("put again if absent: %v", err)
	}
	got, err := cl.Instance(ctx, "web", "web-1")
	ok("get", err)
	got.Weight = 0
	w, err = cl.PutInstance(ctx, got, client.IfUnchanged(got))
	if err != nil || w.Instance.Weight != 0 || w.Created {
		t.Errorf("put what was got: %+v %v", w, err)
	}
	if _, err := cl.PutInstance(ctx, got, client.IfUnchanged(got)); !errors.Is(err, muster.CodePreconditionFailed) {
		t.Errorf("put if unchanged: %v", err)
	}
	made, err := cl.CreateInstance(ctx, &muster.Instance{Service: "web", Address: "10.0.0.9", Port: 9, Zone: "b"})
	if err != nil || made.Instance.ID == "" {
		t.Fatalf("create: %+v %v", made, err)
	}
	var many []*muster.Instance
	for n := range 700 {
		many = append(many, &muster.Instance{Service: fmt.Sprintf("s%d", n%7), ID: fmt.Sprintf("i%d", n), Address: "10.0.0.2", Port: 80})
	}
	many[650].Port = 0
	items, err := cl.RegisterBatch(ctx, many)
	if err != nil || len(items) != 700 || !errors.Is(items[650].Err, muster.CodeInvalidPort) || items[651].Err != nil || !items[0].Created {
		t.Errorf("batch: %d items, %v", len(items), err)
	}
	var info muster.ReadInfo
	v, err := cl.Service(ctx, "web", client.Linearizable(), client.Info(&info))
	if err != nil || len(v.Instances) != 2 || info.Index != v.Index || info.Stale != 0 {
		t.Errorf("service: %+v %+v %v", v, info, err)
	}
	// What came in a list is good for a condition, too, wherever it stood in its entry.
	for _, id := range []string{"i0", "i7", "i14"} {
		v, err := cl.Service(ctx, "s0")
		if err != nil || v.Find(id) == nil {
			t.Fatalf("s0: %+v %v", v, err)
		}
		changed := *v.Find(id)
		changed.Version = "2"
		if _, err := cl.PutInstance(ctx, &changed, client.IfUnchanged(&changed)); err != nil {
			t.Errorf("put %s from a list if unchanged: %v", id, err)
		}
	}
	if v, err := cl.Service(ctx, "web", client.Where(muster.Query{Zone: "b"})); err != nil || len(v.Instances) != 1 {
		t.Errorf("service by zone: %+v %v", v, err)
	}
	if v, err := cl.Service(ctx, "web", client.After(v.Index, 50*time.Millisecond), client.MaxStale(time.Minute)); err != nil || len(v.Instances) != 2 {
		t.Errorf("long poll: %+v %v", v, err)
	}
	if l, err := cl.Services(ctx, client.Prefix("s")); err != nil || len(l.Services) != 7 {
		t.Errorf("services: %+v %v", l, err)
	}
	if e, err := cl.Events(ctx, muster.EventQuery{Service: "web", Limit: 10}); err != nil || len(e.Events) != 3 || e.Events[0].Reason != "first" {
		t.Errorf("events: %+v %v", e, err)
	}
	b, err := cl.Heartbeat(ctx, "web", "web-1", client.Incarnation(got.Incarnation))
	if err != nil || b.TTL != muster.TTL(time.Minute) || b.Next <= 0 {
		t.Errorf("heartbeat: %+v %v", b, err)
	}
	l, err := cl.GrantLease(ctx, muster.LeaseRequest{Name: "host"})
	ok("grant", err)
	_, err = cl.HeartbeatLease(ctx, l.ID)
	ok("heartbeat of a lease", err)
	bs, err := cl.Heartbeats(ctx, muster.Heartbeats{Leases: []muster.LeaseID{l.ID}, Instances: []muster.InstanceBeat{{Service: "web", ID: "nobody"}}})
	if err != nil || bs.Renewed != 1 || len(bs.Unknown) != 1 {
		t.Errorf("heartbeats: %+v %v", bs, err)
	}
	if l, err := cl.Lease(ctx, l.ID); err != nil || l.Remaining <= 0 || l.Name != "host" {
		t.Errorf("lease: %+v %v", l, err)
	}
	_, err = cl.RevokeLease(ctx, l.ID)
	ok("revoke", err)

	s := muster.DefaultSettings()
	s.Strategy = muster.StrategyLeastRequest
	ok("configure", cl.Configure(ctx, "web", s))
	if s, err := cl.Settings(ctx, "web"); err != nil || s.Strategy != muster.StrategyLeastRequest || !s.Protect {
		t.Errorf("settings: %+v %v", s, err)
	}
	p, err := cl.RemoteTicket(ctx, "web", client.TicketTTL(time.Minute), client.PreferZone("b"), client.Picks(2))
	if err != nil || p.Ticket == "" || p.Strategy != muster.StrategyLeastRequest || p.Instance.ID != made.Instance.ID {
		t.Fatalf("ticket: %+v %v", p, err)
	}
	ok("report", cl.ReportTicket(ctx, p.Ticket, muster.PickReport{Outcome: muster.PickSuccess, Latency: muster.Duration(time.Millisecond)}))
	ok("outcomes", cl.ReportOutcomes(ctx, "web", made.Instance.ID, muster.OutcomesReport{Successes: 9, Failures: 1}))
	if p, err := cl.RemotePick(ctx, "web", client.Strategy(muster.StrategyConsistentHash), client.Key("k")); err != nil || p.Strategy != muster.StrategyConsistentHash {
		t.Errorf("pick: %+v %v", p, err)
	}
	if st, err := cl.BalancerStats(ctx, "web"); err != nil || len(st.Instances) != 2 {
		t.Errorf("stats: %+v %v", st, err)
	}
	ok("clear settings", cl.ClearSettings(ctx, "web"))

	o, err := cl.SetOverride(ctx, "web", "web-1", muster.Override{Status: muster.StatusMaintenance, Reason: "disk"})
	if err != nil || o.Instance.Status != muster.StatusMaintenance {
		t.Errorf("override: %+v %v", o, err)
	}
	_, err = cl.ClearOverride(ctx, "web", "web-1")
	ok("clear override", err)
	_, err = cl.Deregister(ctx, "web", "web-1", client.Reason("done"))
	ok("deregister", err)
	if _, err := cl.Instance(ctx, "web", "web-1"); !errors.Is(err, muster.CodeUnknownInstance) {
		t.Errorf("after that: %v", err)
	}

	cs, err := cl.Cluster(ctx)
	if err != nil || len(cs.Members) != 3 {
		t.Fatalf("cluster: %+v %v", cs, err)
	}
	if g, err := cl.SwitchGovernor(ctx, false, client.Reason("drill")); err != nil || g.Enabled {
		t.Errorf("governor off: %+v %v", g, err)
	}
	_, err = cl.SwitchGovernor(ctx, true)
	ok("governor on", err)
	_, err = cl.Governor(ctx)
	ok("governor", err)
	if _, err := cl.Limits(ctx); err != nil {
		t.Errorf("limits: %v", err)
	}
	if v, err := cl.Version(ctx); err != nil || v.API != "v1" {
		t.Errorf("version: %+v %v", v, err)
	}
	to := c.Followers(c.Leader())[0]
	if leader, err := cl.TransferLeadership(ctx, to.Node().ID()); err != nil {
		t.Errorf("transfer: %q %v", leader, err)
	}
	if err := cl.RemoveMember(ctx, "nobody"); !errors.Is(err, muster.CodeUnknownMember) {
		t.Errorf("remove nobody: %v", err)
	}
}

// TestClientSessionsSurviveTheLeader: nobody is dropped while the leader crashes,
// and all go at the end.
func TestClientSessionsSurviveTheLeader(t *testing.T) {
	c := clustertest.Start(t, 3)
	cl := newSDK(t, c)
	const count = 200
	var all []*client.Session
	for n := range count {
		s, err := cl.Register(t.Context(), webInstance(fmt.Sprintf("web-%d", n), 4*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), clustertest.Patience)
	defer cancel()
	for _, s := range all {
		if err := s.Await(ctx); err != nil {
			t.Fatal(err)
		}
	}
	dead := c.Leader()
	dead.Kill()
	alive := c.Leader()
	began := time.Now()
	c.Wait("twice the ttl to pass with all of them there", func() bool {
		v, err := cl.Service(ctx, "web", client.Linearizable())
		if err != nil {
			t.Fatalf("%s after the crash: %v", time.Since(began), err)
		}
		if len(v.Instances) != count {
			t.Fatalf("%s after the crash: %d instances are there", time.Since(began), len(v.Instances))
		}
		for _, i := range v.Instances {
			if i.Suspect {
				t.Fatalf("%s after the crash: %s is suspect", time.Since(began), i.ID)
			}
		}
		return time.Since(began) > 8*time.Second
	})
	if e, err := cl.Events(ctx, muster.EventQuery{Service: "web", Limit: muster.MaxEvents}); err != nil || len(e.Events) != count {
		t.Errorf("the journal tells of %d transitions, want one registration each (%v)", len(e.Events), err)
	}
	cl.Close()
	var v muster.View
	clustertest.MustDecode(t, alive.MustDo("GET", "/v1/services/web?consistency=linearizable", "", 200), &v)
	if len(v.Instances) != 0 || v.EmptyReason != muster.EmptyDeregistered {
		t.Errorf("after Close %d are there, %q", len(v.Instances), v.EmptyReason)
	}
	for _, s := range all {
		if st, err := s.State(); st != client.StateEnded || err != nil {
			t.Fatalf("ended as %s %v", st, err)
		}
	}
}

// TestClientFenced: of two processes with the same id, through different nodes, the
// later one has it, and the older one is told by its next heartbeat.
func TestClientFenced(t *testing.T) {
	c := clustertest.Start(t, 3)
	followers := c.Followers(c.Leader())
	one := func(m *clustertest.Member) func(*client.Config) {
		return func(cfg *client.Config) { cfg.Addrs = []string{m.URL()} }
	}
	ctx, cancel := context.WithTimeout(t.Context(), clustertest.Patience)
	defer cancel()
	register := func(m *clustertest.Member) (*client.Client, *client.Session) {
		t.Helper()
		cl := newSDK(t, c, one(m))
		s, err := cl.Register(ctx, webInstance("web-1", 2*time.Second), client.Because("deploy 42"))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Await(ctx); err != nil {
			t.Fatal(err)
		}
		return cl, s
	}
	first, older := register(followers[0])
	<-time.After(5 * time.Millisecond) // incarnations are milliseconds
	_, newer := register(followers[1])
	select {
	case <-older.Done():
	case <-ctx.Done():
		t.Fatal("the older one goes on")
	}
	if st, err := older.State(); st != client.StateFenced || !errors.Is(err, muster.CodeFenced) {
		t.Errorf("the older one: %s %v", st, err)
	}
	first.Close()
	if i, err := first.Instance(ctx, "web", "web-1", client.Linearizable()); err != nil || i.Incarnation != newer.Incarnation() {
		t.Errorf("registered is %+v %v", i, err)
	}
	if e, err := first.Events(ctx, muster.EventQuery{Service: "web"}, client.Linearizable()); err != nil || len(e.Events) != 2 || e.Events[0].Reason != "deploy 42" {
		t.Errorf("the journal: %+v %v", e, err)
	}
}

// TestClientRegistryRestart: all nodes crash and come back after longer than the
// TTLs. Sessions are registered again, nobody was dropped, and watches showed all of
// them all the time.
func TestClientRegistryRestart(t *testing.T) {
	c := clustertest.Start(t, 3)
	cl := newSDK(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 3*clustertest.Patience)
	defer cancel()
	const count = 50
	var all []*client.Session
	for n := range count {
		s, err := cl.Register(ctx, webInstance(fmt.Sprintf("web-%d", n), 2*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	w, err := cl.Watch(ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	c.Wait("all to be there", func() bool { v := w.View(); return v != nil && len(v.Instances) == count })
	whole := func(when string) {
		t.Helper()
		if n := len(w.View().Instances); n != count {
			t.Fatalf("%s the watch shows %d", when, n)
		}
	}
	for _, m := range c.Members {
		m.Kill()
	}
	c.Wait("a session to be lost", func() bool {
		whole("with nobody there")
		st, _ := all[0].State()
		return st == client.StateLost
	})
	for _, m := range c.Members {
		m.Start()
	}
	c.Wait("all to be registered again", func() bool {
		whole("on the way back")
		for _, s := range all {
			if st, _ := s.State(); st != client.StateRegistered {
				return false
			}
		}
		return w.Status().Connected
	})
	whole("in the end")
	if e, err := cl.Events(ctx, muster.EventQuery{Service: "web", Limit: muster.MaxEvents}); err != nil || len(e.Events) != count {
		t.Errorf("the journal tells of %d transitions, want one registration each (%v)", len(e.Events), err)
	}
}

// TestClientWatch: a watch goes on from node to node while they crash, is told of
// everything, shows no emptiness in between, and what is registered on one node is
// soon in the cache of a client of another.
func TestClientWatch(t *testing.T) {
	c := clustertest.Start(t, 3)
	writer := newSDK(t, c)
	watcher := newSDK(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 3*clustertest.Patience)
	defer cancel()
	put := func(id string) {
		t.Helper()
		i := webInstance(id, 0)
		i.TTL = muster.NoTTL
		if _, err := writer.PutInstance(ctx, &i); err != nil {
			t.Fatalf("put %s: %v", id, err)
		}
	}
	put("first")
	w, err := watcher.Watch(ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	for v, err := w.Await(ctx); err != nil || len(v.Instances) != 1; v, err = w.Next(ctx, v) {
		if err != nil {
			t.Fatal(err)
		}
	}
	least := make(chan int, 1)
	watching, stop := context.WithCancel(ctx)
	go func() {
		n := 1
		for v := range w.Views(watching) {
			n = min(n, len(v.Instances))
		}
		least <- n
	}()

	put("before")
	for n := range 3 {
		victim := c.Leader()
		if n == 1 {
			victim = c.Followers(victim)[0]
		}
		victim.Kill()
		put(fmt.Sprintf("while-%d", n))
		victim.Start()
		put(fmt.Sprintf("back-%d", n))
		c.WaitReady()
	}
	c.Wait("the watch to show all", func() bool { return len(w.View().Instances) == 8 })
	stop()
	if n := <-least; n < 1 {
		t.Error("an empty list was shown")
	}
	if st := w.Status(); st.Held != "" || st.Old {
		t.Errorf("status %+v", st)
	}
}

// TestClientPropagation measures how long a registration on one node takes to the
// cache of a client of another.
func TestClientPropagation(t *testing.T) {
	c := clustertest.Start(t, 3)
	leader := c.Leader()
	follower := c.Followers(leader)[0]
	one := func(m *clustertest.Member) func(*client.Config) {
		return func(cfg *client.Config) { cfg.Addrs = []string{m.URL()} }
	}
	writer, reader := newSDK(t, c, one(leader)), newSDK(t, c, one(follower))
	ctx, cancel := context.WithTimeout(t.Context(), 2*clustertest.Patience)
	defer cancel()
	w, err := reader.Watch(ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	last, err := w.Await(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var took []time.Duration
	for n := range 40 {
		i := webInstance(fmt.Sprintf("web-%d", n), 0)
		i.TTL = muster.NoTTL
		began := time.Now()
		if _, err := writer.PutInstance(ctx, &i); err != nil {
			t.Fatal(err)
		}
		for last.Find(i.ID) == nil {
			if last, err = w.Next(ctx, last); err != nil {
				t.Fatal(err)
			}
		}
		took = append(took, time.Since(began))
		<-time.After(60 * time.Millisecond) // wakes of one service are 50 ms apart
	}
	slices.Sort(took)
	t.Logf("from the request on one node to the cache of a client of another: median %s, most %s", took[len(took)/2], took[len(took)-1])
	if took[len(took)/2] > time.Second {
		t.Errorf("half of them took more than %s", took[len(took)/2])
	}
}
