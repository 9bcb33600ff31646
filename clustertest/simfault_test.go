package clustertest_test

import (
	"slices"
	"time"
)

// fault is something that goes wrong for a while: it begins when called, and the
// function it returns ends it. settle says that it lasts until another leads.
type fault struct {
	name   string
	weight int
	least  time.Duration
	most   time.Duration
	ousts  bool
	kills  bool
	begin  func(w *world, n *machine) (end func())
}

// faults on a node n, which is mostly the leader for those that oust.
var faults = []fault{
	{"kill of the leader", 6, 0, time.Second, true, true, (*world).downtime},
	{"kill of a follower", 2, 50 * time.Millisecond, 2 * time.Second, false, true, (*world).downtime},
	{"cut of the leader", 6, 0, time.Second, true, false, (*world).isolation},
	{"cut of a follower", 2, 200 * time.Millisecond, 2 * time.Second, false, false, (*world).isolation},
	{"cut of what the leader sends", 3, 0, time.Second, true, false, (*world).mute},
	{"cut of what the leader hears", 3, 0, time.Second, true, false, (*world).deaf},
	{"one link one way", 2, 200 * time.Millisecond, 2 * time.Second, false, false, (*world).oneWay},
	{"pause of the leader", 5, 0, 2 * time.Second, true, false, (*world).pause},
	{"short pause of the leader", 3, 100 * time.Millisecond, 900 * time.Millisecond, false, false, (*world).pauseLeader},
	{"pause of a follower", 2, 100 * time.Millisecond, 2 * time.Second, false, false, (*world).pause},
	{"pause of all", 1, 200 * time.Millisecond, 6 * time.Second, false, false, (*world).pauseAll},
	{"stalled keeper of the leader", 1, 100 * time.Millisecond, 3 * time.Second, false, false, (*world).stallLeader},
	{"hung disk of the leader", 2, 100 * time.Millisecond, 2 * time.Second, false, false, (*world).hang},
	{"hung disk of the leader, cut off", 3, 0, time.Second, true, false, (*world).hangCut},
	{"slow links", 1, 200 * time.Millisecond, 2 * time.Second, false, false, (*world).slowDown},
	{"leadership transfer", 16, 0, 300 * time.Millisecond, true, false, (*world).transfer},
	{"restart of all", 1, 0, time.Second, false, true, (*world).downtimeAll},
}

// pick chooses a fault by weight.
func (w *world) pick() fault {
	faults := faults
	if w.gentle {
		faults = slices.DeleteFunc(slices.Clone(faults), func(f fault) bool { return f.kills })
	}
	total := 0
	for _, f := range faults {
		total += f.weight
	}
	n := w.rng.IntN(total)
	i := slices.IndexFunc(faults, func(f fault) bool { n -= f.weight; return n < 0 })
	return faults[i]
}

// strike lets one fault, sometimes two at once, happen and end.
func (w *world) strike() {
	count := 1
	if w.rng.IntN(5) == 0 {
		count = 2
	}
	var ends []func()
	for range count {
		f := w.pick()
		leader := w.leader()
		n := w.nodes[w.rng.IntN(len(w.nodes))]
		if f.ousts && leader != nil {
			n = leader
		} else if !f.ousts && n == leader {
			n = w.nodes[(n.index+1)%len(w.nodes)]
		}
		w.trace("%s (%s)", f.name, n.id)
		before := w.failovers()
		ends = append(ends, f.begin(w, n))
		if f.ousts {
			w.await(4*time.Second, func() bool { return w.failovers() > before })
		}
		w.sleep(w.between(f.least, f.most))
	}
	for _, end := range ends {
		end()
		w.sleep(w.between(0, 200*time.Millisecond))
	}
	w.trace("healed")
	if w.rng.IntN(4) > 0 {
		w.waitLeader(5 * time.Second)
		w.sleep(w.between(0, time.Second))
	}
}

// await waits until ok, or for as long as patience lasts.
func (w *world) await(patience time.Duration, ok func() bool) {
	for end := time.Now().Add(patience); time.Now().Before(end) && !ok(); {
		w.sleep(20 * time.Millisecond)
	}
}

func (w *world) downtime(n *machine) func() {
	w.kill(n)
	return func() {
		if n.running() == nil {
			w.start(n)
		}
	}
}

func (w *world) downtimeAll(*machine) func() {
	w.kill(w.nodes...)
	return func() {
		for _, n := range w.nodes {
			if n.running() == nil {
				w.start(n)
			}
		}
	}
}

// sever cuts links; the function mends them.
func (w *world) sever(links ...link) func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range links {
		w.cuts[l]++
		w.history.cutting(l).begin(time.Now())
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, l := range links {
			w.cuts[l]--
			w.history.cutting(l).end(time.Now())
		}
	}
}

func (w *world) links(from, to bool, n *machine) (all []link) {
	for _, o := range w.nodes {
		if o != n && from {
			all = append(all, link{n.index, o.index})
		}
		if o != n && to {
			all = append(all, link{o.index, n.index})
		}
	}
	return all
}

func (w *world) isolation(n *machine) func() { return w.sever(w.links(true, true, n)...) }
func (w *world) mute(n *machine) func()      { return w.sever(w.links(true, false, n)...) }
func (w *world) deaf(n *machine) func()      { return w.sever(w.links(false, true, n)...) }
func (w *world) oneWay(n *machine) func() {
	return w.sever(link{n.index, (n.index + 1 + w.rng.IntN(len(w.nodes)-1)) % len(w.nodes)})
}

// troubled notes a node's trouble; the function notes its end.
func (w *world) troubled(n *machine) func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history.trouble[n.index].begin(time.Now())
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.history.trouble[n.index].end(time.Now())
	}
}

// stuck notes that nothing can be committed; the function notes the end of that.
func (w *world) stuck() func() {
	from := time.Now()
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.history.stuck.add(from, time.Now())
	}
}

func (w *world) shut(n *machine, b *barrier) func() {
	end := w.troubled(n)
	b.close()
	return func() { b.open(); end() }
}

func (w *world) pause(n *machine) func() {
	if p := n.running(); p != nil {
		return w.shut(n, &p.stop)
	}
	return func() {}
}

func (w *world) pauseLeader(n *machine) func() {
	if l := w.leader(); l != nil {
		n = l
	}
	return w.pause(n)
}

func (w *world) pauseAll(*machine) func() {
	var ends []func()
	for _, n := range w.nodes {
		ends = append(ends, w.pause(n))
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}
}

func (w *world) stallLeader(n *machine) func() {
	if l := w.leader(); l != nil {
		n = l
	}
	if p := n.running(); p != nil {
		return w.shut(n, &p.stall)
	}
	return func() {}
}

func (w *world) hang(n *machine) func() {
	if l := w.leader(); l != nil {
		n = l
	}
	end := w.stuck()
	n.disk.hang.close()
	return func() { n.disk.hang.open(); w.sleep(30 * time.Millisecond); end() }
}

// hangCut lets the leader's main loop hang, so that it does not notice that it has
// been cut off and another leads, and mends the links before the disk.
func (w *world) hangCut(n *machine) func() {
	release := w.hang(n)
	mend := w.isolation(n)
	return func() {
		mend()
		w.sleep(w.between(0, time.Second))
		release()
	}
}

func (w *world) slowDown(n *machine) func() {
	end, moves := w.troubled(n), w.stuck()
	n.slow.Store(int64(100 * time.Millisecond))
	return func() { n.slow.Store(0); end(); moves() }
}

func (w *world) transfer(n *machine) func() {
	p := n.running()
	if p == nil {
		return func() {}
	}
	moves := w.stuck() // proposals are refused meanwhile
	w.wg.Go(func() {
		_ = p.raft.LeadershipTransfer().Error()
		moves()
	})
	return func() {}
}
