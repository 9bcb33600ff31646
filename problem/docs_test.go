package problem_test

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/problem"
)

// TestErrorsPage holds docs/errors.md against the codes of error.go, both ways, and
// against their statuses.
func TestErrorsPage(t *testing.T) {
	page, err := os.ReadFile("../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("../error.go")
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (\\d+) \\| ([^|]{10,}) \\|").FindAllStringSubmatch(string(page), -1) {
		if _, twice := written[m[1]]; twice {
			t.Errorf("%s is explained twice", m[1])
		}
		written[m[1]] = m[2]
	}
	codes := regexp.MustCompile(`(?m)^\s*(?:const )?Code\w+\s+Code = "([a-z_]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(codes) < 40 {
		t.Fatalf("error.go has only %d codes", len(codes))
	}
	for _, c := range codes {
		status, ok := written[c[1]]
		if !ok {
			t.Errorf("docs/errors.md does not explain %s", c[1])
		} else if want := strconv.Itoa(problem.Status(muster.Code(c[1]))); status != want {
			t.Errorf("docs/errors.md gives %s the status %s, not %s", c[1], status, want)
		}
		delete(written, c[1])
	}
	for code := range written {
		t.Errorf("docs/errors.md explains %s, which is no code", code)
	}
}
