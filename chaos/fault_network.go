package chaos

import (
	"errors"
	"time"
)

// direction is which way a link is cut.
type direction int

const (
	both direction = iota
	inward
	outward
)

// lose makes what from sends be lost at at.
func (f *injection) lose(at, from *Node, rules ...string) error {
	return f.c.net.lose(at.host, from.host, rules...)
}

// part cuts the link between two nodes, seen from the first.
func (f *injection) part(a, b *Node, d direction) error {
	var errs []error
	if d != outward {
		errs = append(errs, f.lose(a, b, loseAll))
	}
	if d != inward {
		errs = append(errs, f.lose(b, a, loseAll))
	}
	return errors.Join(errs...)
}

// cut parts a node from all others. The clients still reach it.
func cut(leads bool, d direction) func(*injection) error {
	return func(f *injection) error {
		n, err := f.pick(leads)
		if err != nil {
			return err
		}
		f.on(n)
		return f.isolate(n, d)
	}
}

func (f *injection) isolate(n *Node, d direction) error {
	var errs []error
	for _, o := range f.c.Nodes() {
		if o != n {
			errs = append(errs, f.part(n, o, d))
		}
	}
	return errors.Join(errs...)
}

// cutAll parts each node from each.
func cutAll(f *injection) error {
	return f.each(func(n *Node) error { return f.isolate(n, inward) })
}

// cutLink cuts the one link between the leader and a follower, or two followers.
func cutLink(leads bool) func(*injection) error {
	return func(f *injection) error {
		leader, others, err := f.leader()
		if err != nil {
			return err
		}
		a, b := others[0], others[1]
		if leads {
			a = leader
		}
		f.on(a, b)
		return f.part(a, b, both)
	}
}

// halfLink loses one direction of one link, whichever.
func halfLink(f *injection) error {
	leader, others, err := f.leader()
	if err != nil {
		return err
	}
	all := append([]*Node{leader}, others...)
	f.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	f.on(all[0], all[1])
	f.note("%s hears nothing from %s", all[0].Name, all[1].Name)
	return f.part(all[0], all[1], inward)
}

// dialOnly breaks the connections that a follower has to the leader and lets it make
// no new ones, while the leader may call the follower.
func dialOnly(f *injection) error {
	leader, others, err := f.leader()
	if err != nil {
		return err
	}
	f.on(leader, others[0])
	f.note("%s may not call %s", others[0].Name, leader.Name)
	if err := f.lose(leader, others[0], loseCalls, breakCalls); err != nil {
		return err
	}
	if err := wait(f.ctx, time.Second); err != nil {
		return err
	}
	f.c.net.forget(leader.host)
	return f.lose(leader, others[0], loseCalls)
}

// flapLeader cuts the leader, whoever that is, for a moment, again and again.
func flapLeader(f *injection) error {
	for range 4 {
		n, err := f.pick(true)
		if err != nil {
			return err
		}
		f.on(n)
		f.shock()
		if err := f.isolate(n, both); err != nil {
			return err
		}
		if err := f.wait(0.5, 3); err != nil {
			return err
		}
		if err := f.c.Heal(); err != nil {
			return err
		}
		if err := f.wait(0.5, 3); err != nil {
			return err
		}
	}
	return nil
}

// loss loses packets of all links between nodes.
func loss(protocols ...string) func(*injection) error {
	return func(f *injection) error {
		percent := 5 + f.rng.IntN(16)
		f.note("%d %%", percent)
		var errs []error
		for _, a := range f.c.Nodes() {
			f.on(a)
			for _, b := range f.c.Nodes() {
				for _, p := range protocols {
					if a != b {
						errs = append(errs, f.lose(a, b, losing(p, percent)))
					}
				}
			}
		}
		return errors.Join(errs...)
	}
}

// slowLink lets what the leader sends wait in a queue.
func slowLink(f *injection) error {
	n, err := f.pick(true)
	if err != nil {
		return err
	}
	f.on(n)
	return f.c.net.slow(n.host)
}
