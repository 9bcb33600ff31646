package muster_test

import (
	"encoding/json"
	"os"
	"regexp"
	"testing"

	"github.com/muster-registry/muster"
)

// TestLimitsPage holds docs/limits.md against what GET /v1/limits shows, both ways.
func TestLimitsPage(t *testing.T) {
	page, err := os.ReadFile("docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(muster.CurrentLimits())
	if err != nil {
		t.Fatal(err)
	}
	var shown map[string]json.RawMessage
	if err := json.Unmarshal(text, &shown); err != nil {
		t.Fatal(err)
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (\\S+) \\| [^|]{4,} \\|").FindAllStringSubmatch(string(page), -1) {
		value, ok := shown[row[1]]
		if !ok {
			t.Errorf("docs/limits.md names %s, which is no limit, or names it twice", row[1])
			continue
		}
		var want, got muster.Duration
		if value[0] != '"' {
			if row[2] != string(value) {
				t.Errorf("docs/limits.md says that %s is %s, it is %s", row[1], row[2], value)
			}
		} else if err := json.Unmarshal(value, &want); err != nil {
			t.Fatal(err)
		} else if err := json.Unmarshal([]byte(`"`+row[2]+`"`), &got); err != nil || got != want {
			t.Errorf("docs/limits.md says that %s is %s, it is %s (%v)", row[1], row[2], value, err)
		}
		delete(shown, row[1])
	}
	for name := range shown {
		t.Errorf("docs/limits.md does not name %s", name)
	}
}
