package main

import (
	"bufio"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// table prints rows in columns that fit their widest cell. On a terminal a row is made
// to fit a line: columns that can be spared are left out, which is said below, then the
// widest cells are cut; and what is well and what is not have colours. Elsewhere nothing
// is cut and nothing coloured.
func table(w io.Writer, header string, rows [][]string) error {
	head := strings.Fields(header)
	for _, r := range rows {
		for n := range r {
			if r[n] == "" {
				r[n] = "-"
			}
		}
	}
	room := terminalWidth(w)
	head, rows, left := spare(head, rows, room)
	widths := columns(append([][]string{head}, rows...))
	if room > 0 {
		fit(head, widths, room)
	}
	paint := func(_, _ string) string { return "" }
	if useColour(w) {
		paint = cellColour
	}
	out := bufio.NewWriter(w)
	line := func(cells []string) {
		for n, cell := range cells {
			text := cut(cell, widths[n])
			colour := paint(head[n], cell)
			pad := ""
			if n < len(cells)-1 {
				pad = strings.Repeat(" ", widths[n]-utf8.RuneCountInString(text)+columnGap)
			}
			if colour != "" {
				text = colour + text + "\x1b[0m"
			}
			out.WriteString(text + pad)
		}
		out.WriteByte('\n')
	}
	line(head)
	for _, r := range rows {
		line(r)
	}
	if len(left) > 0 {
		out.WriteString("(no room for " + strings.Join(left, ", ") + "; -o json has all)\n")
	}
	return out.Flush()
}

const (
	columnGap   = 2
	leastColumn = 6  // of a column that is cut
	readable    = 14 // a cell that is cut to less says little
)

// spared are the columns that a narrow terminal goes without, the first one first:
// what is not needed to tell one row from another, and how it is.
var spared = []string{"PEER", "TTL", "WEIGHT", "APPLIED", "LAG", "TAGS", "INDEX", "SINCE", "ACTOR", "VERSION", "ZONE", "TYPE", "CAUSE"}

// spare leaves out columns until the others fit into room with cells that can be
// read: first those in which nothing is, then those that are spared. It returns the
// names of those that said something.
func spare(head []string, rows [][]string, room int) (kept []string, cells [][]string, left []string) {
	drop := func(n int) {
		head = slices.Delete(slices.Clone(head), n, n+1)
		fewer := make([][]string, len(rows))
		for k, r := range rows {
			fewer[k] = slices.Delete(slices.Clone(r), n, n+1)
		}
		rows = fewer
	}
	tight := func() bool {
		widths := columns(append([][]string{head}, rows...))
		for n := range widths {
			most := readable
			if whole(head[n]) {
				most *= 2
			}
			widths[n] = min(widths[n], most)
		}
		return room > 0 && len(rows) > 0 && total(widths) > room
	}
	for n := len(head) - 1; n >= 0 && tight(); n-- {
		if !slices.ContainsFunc(rows, func(r []string) bool { return r[n] != "-" }) {
			drop(n)
		}
	}
	for _, name := range spared {
		if n := slices.Index(head, name); n >= 0 && tight() {
			drop(n)
			left = append(left, name)
		}
	}
	return head, rows, left
}

// whole are the columns of which half a cell is of little use.
func whole(column string) bool {
	return slices.Contains([]string{"TIME", "ADDRESS", "API", "ID", "STATUS", "STATE", "NAME"}, column)
}

// columns are the widths of the widest cells.
func columns(rows [][]string) []int {
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for n, cell := range r {
			widths[n] = max(widths[n], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

// fit takes from the widest columns until all of them fit into room; those that are
// best left whole may be twice as wide as the others.
func fit(head []string, widths []int, room int) {
	for total(widths) > room {
		widest, most := -1, 0
		for n, w := range widths {
			if !whole(head[n]) {
				w *= 2
			}
			if widths[n] > leastColumn && w > most {
				widest, most = n, w
			}
		}
		if widest < 0 {
			return // too many columns for such a terminal: it wraps them
		}
		widths[widest]--
	}
}

func total(widths []int) int {
	sum := columnGap * (len(widths) - 1)
	for _, w := range widths {
		sum += w
	}
	return sum
}

// cut shortens a cell to width characters.
func cut(cell string, width int) string {
	if utf8.RuneCountInString(cell) <= width {
		return cell
	}
	return string([]rune(cell)[:width-1]) + "…"
}

// cellColour is the colour of a cell, by its column; "" for none.
func cellColour(column, cell string) string {
	if column == cell {
		return "\x1b[1m" // the header
	}
	switch column {
	case "STATUS", "ALIVE":
		switch cell {
		case "up", "yes":
			return "\x1b[32m"
		case "down", "NO":
			return "\x1b[31m"
		case "-":
			return ""
		}
		return "\x1b[33m"
	}
	return ""
}
