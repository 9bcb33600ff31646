package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestDocsCommands: each command line in the pages for operators is one that muster
// understands, and each page and file they link to is there.
func TestDocsCommands(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) < 5 {
		t.Fatalf("found the pages %q: %v", pages, err)
	}
	lines := 0
	for _, page := range append(pages, "../../README.md") {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(string(b), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			}
		}
		inline := regexp.MustCompile("`(muster [a-z][^`]*)`").FindAllStringSubmatch(string(b), -1)
		block := regexp.MustCompile(`(?m)^(?:\(umask 077; )?(muster [a-z].*)$`).FindAllStringSubmatch(strings.ReplaceAll(string(b), "\\\n", " "), -1)
		for _, m := range append(inline, block...) {
			lines++
			checkCommand(t, page, m[1])
		}
	}
	if lines < 20 {
		t.Errorf("found only %d command lines", lines)
	}
}

// checkCommand parses a line up to its comment, pipe or the like.
func checkCommand(t *testing.T, page, line string) {
	t.Helper()
	words := strings.Fields(regexp.MustCompile(`\s(?:#|\||>|--exec|-- ).*|\).*`).ReplaceAllString(line, ""))[1:]
	words = slices.DeleteFunc(words, func(w string) bool { return w == "…" })
	cmd, rest, err := newRoot().Find(words)
	if err != nil || cmd.Name() == "muster" {
		t.Errorf("%s: there is no verb of %q: %v", page, line, err)
		return
	}
	if err := cmd.ParseFlags(rest); err != nil && !errors.Is(err, pflag.ErrHelp) {
		t.Errorf("%s: %q: %v", page, line, err)
	}
}
