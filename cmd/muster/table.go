package main

import (
	"bufio"
	"io"
	"strings"
	"unicode/utf8"
)

// table prints rows in columns that fit their widest cell. On a terminal the widest
// cells are cut so that a row fits a line, and what is well and what is not have
// colours; elsewhere nothing is cut and nothing coloured.
func table(w io.Writer, header string, rows [][]string) error {
	head := strings.Fields(header)
	for _, r := range rows {
		for n := range r {
			if r[n] == "" {
				r[n] = "-"
			}
		}
	}
	widths := columns(append([][]string{head}, rows...))
	if room := terminalWidth(w); room > 0 {
		fit(widths, room)
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
	return out.Flush()
}

const (
	columnGap   = 2
	leastColumn = 6 // of a column that is cut
)

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

// fit takes from the widest columns until all of them fit into room.
func fit(widths []int, room int) {
	for total(widths) > room {
		widest := 0
		for n := range widths {
			if widths[n] > widths[widest] {
				widest = n
			}
		}
		if widths[widest] <= leastColumn {
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
