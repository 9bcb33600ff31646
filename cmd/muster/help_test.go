package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// everyCommand calls f for each command that people are shown.
func everyCommand(f func(cmd *cobra.Command)) {
	root := newRoot()
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Hidden {
			return
		}
		f(cmd)
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
}

// TestHelp: every verb says in a line what it is for, shows how it is used, and what
// each of its flags means.
func TestHelp(t *testing.T) {
	seen := 0
	everyCommand(func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		seen++
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") || len(cmd.Short) > 72 {
			t.Errorf("%s: its short text is %q", path, cmd.Short)
		}
		if !strings.Contains(cmd.Example, path) {
			t.Errorf("%s: its example does not show it: %q", path, cmd.Example)
		}
		for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
			if len(strings.TrimRight(line, "\n")) > 110 {
				t.Errorf("%s: a line of its help does not fit a terminal: %q", path, line)
			}
		}
		for line := range strings.Lines(cmd.UsageString()) {
			if n := len([]rune(strings.TrimRight(line, "\n"))); n > helpWidth+10 {
				t.Errorf("%s: a line of its usage is %d wide: %q", path, n, line)
			}
		}
		cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s: --%s does not say what it is for", path, f.Name)
			}
		})
	})
	if seen < 25 {
		t.Errorf("saw %d commands, which cannot be all", seen)
	}
}

// TestExamples: the commands that the help shows exist, and so do their flags.
func TestExamples(t *testing.T) {
	everyCommand(func(cmd *cobra.Command) {
		for line := range strings.Lines(cmd.Example) {
			words := strings.Fields(line)
			if len(words) == 0 || words[0] != "muster" {
				continue
			}
			root := newRoot()
			found, _, err := root.Find(words[1:])
			if err != nil || found == root && len(words) > 1 && !strings.HasPrefix(words[1], "-") {
				t.Errorf("%s: %q is no command: %v", cmd.CommandPath(), line, err)
				continue
			}
			own := words
			if end := slices.IndexFunc(words, func(w string) bool { return w == "--" || w == "|" || w == "&&" }); end >= 0 {
				own = words[:end]
			}
			for _, w := range own {
				name, _, _ := strings.Cut(strings.TrimPrefix(w, "--"), "=")
				if !strings.HasPrefix(w, "--") {
					continue
				}
				if found.Flags().Lookup(name) == nil && found.InheritedFlags().Lookup(name) == nil {
					t.Errorf("%s: %q: there is no --%s", cmd.CommandPath(), line, name)
				}
			}
		}
	})
}
