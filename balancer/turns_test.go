package balancer_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
)

// turns are the first n picks, by the number of the instance.
func turns(t *testing.T, v *muster.View, name string, n int) []int {
	t.Helper()
	b := newBalancer(t, balancer.Config{Random: seeded(9)})
	r := &balancer.Request{View: v, Strategy: strategy(t, name)}
	place := map[string]int{}
	for k, i := range v.Instances {
		place[i.ID] = k
	}
	got := make([]int, n)
	for k := range got {
		got[k] = place[pick(t, b, epoch, r).Instance.ID]
	}
	return got
}

func TestRoundRobinTakesEverybodyInTurn(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"round_robin", "weighted_round_robin"} {
		got := turns(t, service(7), name, 70)
		for k := 7; k < len(got); k++ {
			if got[k] != got[k-7] {
				t.Fatalf("%s: got %v", name, got)
			}
		}
		if seen := counts(got, 7); seen[0] != 10 || seen[6] != 10 {
			t.Errorf("%s: got %v, want 10 each", name, seen)
		}
	}
}

func counts(turns []int, n int) []int {
	seen := make([]int, n)
	for _, k := range turns {
		seen[k]++
	}
	return seen
}

// TestSmallWeightsGoAsNginx: the schedules its documentation promises, beginning
// anywhere.
func TestSmallWeightsGoAsNginx(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		weights []int
		want    string
	}{
		{[]int{5, 1, 1}, "aabacaa"},
		{[]int{500, 100, 100}, "aabacaa"},
		{[]int{3, 1}, "aaba"},
		{[]int{2, 1}, "aba"},
		{[]int{3, 2, 1}, "abacba"},
		{[]int{4, 2, 1, 1}, "abacdaba"},
	} {
		n := len(c.want)
		var got strings.Builder
		for _, k := range turns(t, service(len(c.weights), weights(c.weights...)), "weighted_round_robin", 2*n) {
			got.WriteByte(byte('a' + k))
		}
		if !strings.Contains(got.String(), c.want) && !strings.Contains(c.want+c.want, got.String()[:n]) {
			t.Errorf("weights %v: got %s, want a part of %s", c.weights, got.String(), strings.Repeat(c.want, 3))
		}
	}
}

// TestSmoothness: at no time is anybody far from its share, and nobody comes twice
// running whose share allows for better. This is so with three instances and with a
// hundred thousand.
func TestSmoothness(t *testing.T) {
	t.Parallel()
	heavy := func(k int, i *muster.Instance) {
		i.Weight = 1 + k*7919%100
		if k == 3 {
			i.Weight = 60_000
		}
	}
	for _, c := range []struct {
		name  string
		n     int
		c     change
		most  float64 // off by at most so many turns
		turns int
	}{
		{"seven of small weights", 7, weights(5, 1, 3, 2, 2, 1, 4), 1.5, 1000},
		{"weights without a common factor", 3, weights(60_000, 1009, 1013), 3, 100_000},
		{"a thousand", 1000, mixedWeights, 3, 20_000},
		{"one heavy among a thousand", 1000, heavy, 3, 20_000},
		{"a hundred thousand", 100_000, mixedWeights, 3, 60_000},
		{"one heavy among a hundred thousand", 100_000, heavy, 3, 60_000},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := service(c.n, c.c)
			var sum float64
			for _, i := range v.Instances {
				sum += float64(i.Weight)
			}
			got := turns(t, v, "weighted_round_robin", c.turns)
			seen := make([]float64, c.n)
			last := make([]int, c.n)
			worst := 0.0
			for k, i := range got {
				share := float64(v.Instances[i].Weight) / sum
				// Somebody is furthest ahead just after a turn and furthest behind just
				// before one.
				behind := float64(k)*share - seen[i]
				seen[i]++
				ahead := seen[i] - float64(k+1)*share
				worst = max(worst, behind, ahead)
				if last[i] > 0 && share < 0.25 && k+1 == last[i]+1 {
					t.Fatalf("turn %d: %d came twice running, its share is %.4f", k, i, share)
				}
				last[i] = k + 1
			}
			if worst > c.most {
				t.Errorf("off by %.2f turns, want at most %v", worst, c.most)
			}
			t.Logf("off by %.2f turns", worst)
		})
	}
}

// TestSharesAreExact: over as many turns as the weights add up to, everybody comes
// exactly as often as its weight says.
func TestSharesAreExact(t *testing.T) {
	t.Parallel()
	crowd := slices.Repeat([]int{1}, 200) // of light ones between heavy ones
	crowd[0], crowd[150] = 30_011, 20_000
	for k, ws := range [][]int{{5, 1, 1}, {997, 13, 41}, {60_000, 1009, 1013}, {65535, 65534, 1}, {1024, 2}, crowd} {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			t.Parallel()
			sum := 0
			for _, w := range ws {
				sum += w
			}
			got := counts(turns(t, service(len(ws), weights(ws...)), "weighted_round_robin", sum), len(ws))
			for k, w := range ws {
				if got[k] != w {
					t.Errorf("got %v, want %v", got, ws)
					break
				}
			}
		})
	}
}

// TestVeryHighWeights: the shares hold where the weights add up to more than the
// arithmetic of a pick holds.
func TestVeryHighWeights(t *testing.T) {
	t.Parallel()
	v := service(80_000, func(k int, i *muster.Instance) {
		if i.Weight = 65_535; k%2 == 1 {
			i.Weight = 43_690 // two thirds
		}
	})
	for _, name := range []string{"weighted_round_robin", "weighted_random"} {
		odd := 0
		for _, k := range turns(t, v, name, 40_000) {
			odd += k % 2
		}
		if share := float64(odd) / 40_000; math.Abs(share-0.4) > 0.01 {
			t.Errorf("%s: the lighter half got %.3f, want 0.4", name, share)
		}
	}
}
