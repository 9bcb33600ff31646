package chaos_test

import (
	"flag"
	"testing"

	"github.com/muster-registry/muster/chaos"
)

var again = flag.String("chaos.recheck", "", "folder of an earlier run, whose history is checked again")

// TestRecheck checks what an earlier run left, with the checkers of today. Without
// such a run it checks that checking twice says the same.
func TestRecheck(t *testing.T) {
	if *again != "" {
		v, err := chaos.Recheck(*again, chaos.Bounds{})
		if err != nil {
			t.Fatal(err)
		}
		t.Log(v)
		if !v.OK() {
			t.Fail()
		}
		return
	}
	s, m := tale()
	move(m.last, 60)
	s.final()
	dir := t.TempDir()
	first := s.checkIn(t, dir, chaos.Bounds{Short: true})
	second, err := chaos.Recheck(dir, chaos.Bounds{Short: true})
	if err != nil {
		t.Fatal(err)
	}
	if first.OK() || second.String() != first.String() {
		t.Errorf("first:\n%v\nagain:\n%v", first, second)
	}
}
