package chaos

import "time"

// kill ends one process the hard way.
func kill(leads bool) func(*injection) error {
	return func(f *injection) error {
		n, err := f.pick(leads)
		if err != nil {
			return err
		}
		f.on(n)
		n.Kill()
		return nil
	}
}

// killLeaders kills the leader, starts it again, and does the same to the next leader,
// who has to be elected without waiting for the first.
func killLeaders(f *injection) error {
	for range 3 {
		n, err := f.pick(true)
		if err != nil {
			return err
		}
		f.on(n)
		f.shock()
		n.Kill()
		if err := f.wait(0, 0.5); err != nil {
			return err
		}
		if err := n.Start(); err != nil {
			return err
		}
		if err := f.wait(0.5, 2); err != nil {
			return err
		}
	}
	return nil
}

func killAll(f *injection) error {
	return f.each(func(n *Node) error { n.Kill(); return nil })
}

// halt stops one process without telling it.
func halt(leads bool) func(*injection) error {
	return func(f *injection) error {
		n, err := f.pick(leads)
		if err != nil {
			return err
		}
		f.on(n)
		return n.Pause()
	}
}

func haltAll(f *injection) error { return f.each((*Node).Pause) }

// blink stops the leader again and again for less than an election timeout.
func blink(f *injection) error {
	n, err := f.pick(true)
	if err != nil {
		return err
	}
	f.on(n)
	for range 6 {
		if err := n.Pause(); err != nil {
			return err
		}
		if err := wait(f.ctx, 300*time.Millisecond); err != nil {
			return err
		}
		if err := n.Resume(); err != nil {
			return err
		}
		if err := f.wait(0.2, 1); err != nil {
			return err
		}
	}
	return nil
}
