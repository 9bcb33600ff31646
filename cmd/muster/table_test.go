package main

import (
	"strings"
	"testing"
)

func TestFit(t *testing.T) {
	for _, tc := range []struct {
		widths []int
		room   int
		want   []int
	}{
		{[]int{4, 4}, 10, []int{4, 4}},
		{[]int{30, 10, 20}, 44, []int{15, 10, 15}},
		{[]int{3, 40}, 20, []int{3, 15}},
		{[]int{9, 9, 9, 9}, 10, []int{6, 6, 6, 6}}, // and no less: what does not fit wraps
	} {
		got := append([]int(nil), tc.widths...)
		fit(got, tc.room)
		for n := range got {
			if got[n] != tc.want[n] {
				t.Errorf("%v into %d: got %v, want %v", tc.widths, tc.room, got, tc.want)
				break
			}
		}
	}
	if got := cut("größer", 4); got != "grö…" {
		t.Errorf("cut: got %q", got)
	}
}

// TestTableInAPipe: nothing is cut where the reader may be a program.
func TestTableInAPipe(t *testing.T) {
	long := strings.Repeat("x", 500)
	var out strings.Builder
	if err := table(&out, "ID STATUS", [][]string{{long, "up"}, {"ä", ""}}); err != nil {
		t.Fatal(err)
	}
	want := "ID" + strings.Repeat(" ", 500) + "STATUS\n" + long + "  up\nä" + strings.Repeat(" ", 501) + "-\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
