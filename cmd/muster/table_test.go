package main

import (
	"slices"
	"strings"
	"testing"
)

func TestFit(t *testing.T) {
	for _, tc := range []struct {
		head   string
		widths []int
		room   int
		want   []int
	}{
		{"A B", []int{4, 4}, 10, []int{4, 4}},
		{"A B C", []int{30, 10, 20}, 44, []int{15, 10, 15}},
		{"A B", []int{3, 40}, 20, []int{3, 15}},
		{"A B C D", []int{9, 9, 9, 9}, 10, []int{6, 6, 6, 6}}, // and no less: what does not fit wraps
		{"ID B C", []int{24, 20, 20}, 52, []int{24, 12, 12}},
		{"ID B C", []int{60, 20, 20}, 44, []int{20, 10, 10}},
		{"ID B C", []int{60, 20, 20}, 26, []int{10, 6, 6}},
	} {
		got := slices.Clone(tc.widths)
		if fit(strings.Fields(tc.head), got, tc.room); !slices.Equal(got, tc.want) {
			t.Errorf("%s %v into %d: got %v, want %v", tc.head, tc.widths, tc.room, got, tc.want)
		}
	}
	if got := cut("größer", 4); got != "grö…" {
		t.Errorf("cut: got %q", got)
	}
}

// TestSpare: a narrow terminal goes without what is empty, then without what is
// needed least, and no more of it than it must; no terminal goes without anything.
func TestSpare(t *testing.T) {
	head := "ID ADDRESS STATUS TTL TAGS ZONE"
	row := func(id, tags string) []string { return []string{id, "10.0.0.1:8080", "up", "10s", tags, "-"} }
	for _, tc := range []struct {
		room       int
		kept, left string
	}{
		{0, head, ""},
		{80, head, ""},
		{46, "ID ADDRESS STATUS TTL TAGS", ""},
		{40, "ID ADDRESS STATUS TAGS", "TTL"},
		{30, "ID ADDRESS STATUS", "TTL TAGS"},
		{5, "ID ADDRESS STATUS", "TTL TAGS"},
	} {
		kept, rows, left := spare(strings.Fields(head), [][]string{row("web-1", "canary"), row("web-2", "-")}, tc.room)
		if strings.Join(kept, " ") != tc.kept || strings.Join(left, " ") != tc.left {
			t.Errorf("in %d columns: %v without %v, want %s without %s", tc.room, kept, left, tc.kept, tc.left)
		}
		for _, r := range rows {
			if len(r) != len(kept) || r[1] != "10.0.0.1:8080" {
				t.Errorf("in %d columns: %v below %v", tc.room, r, kept)
			}
		}
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
