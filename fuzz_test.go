package muster_test

import (
	"strings"
	"testing"

	"github.com/muster-registry/muster"
)

// FuzzText: what a name, an address or a reason is cleaned to is clean, and what was
// read from a text reads back from its own.
func FuzzText(f *testing.F) {
	for _, s := range []string{"web", "WEB.", "a@b:1", "10.0.0.5", "::ffff:10.0.0.1", "fe80::1%eth0", "host.example", "a\r\nb", "\xff", "42-0", "57", "57-3", "1m30s", "none", "2xx", "200-299", "-1", "1e400", strings.Repeat("a", 300)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, clean := range map[string]func(string) (string, error){
			"service": muster.CleanService, "namespace": muster.CleanNamespace, "address": muster.CleanAddress, "reason": muster.CleanReason,
		} {
			once, err := clean(s)
			if err != nil {
				continue
			}
			if again, err := clean(once); err != nil || again != once {
				t.Errorf("the %s %q is cleaned to %q, and that to %q, %v", name, s, once, again, err)
			}
			if strings.ContainsAny(once, "\r\n\x00") {
				t.Errorf("the %s %q is let through as %q", name, s, once)
			}
		}
		if muster.CheckID(s) == nil && (s == "" || len(s) > muster.MaxNameLen || strings.ContainsAny(s, "/\\ \r\n\x00")) {
			t.Errorf("the id %q is let through", s)
		}
		if id, err := muster.ParseLeaseID(s); err == nil {
			if again, err := muster.ParseLeaseID(id.String()); err != nil || again != id {
				t.Errorf("the lease id %q reads back as %v, %v", s, again, err)
			}
		}
		if d, err := muster.ParseDuration(s); err == nil {
			if again, err := muster.ParseDuration(d.String()); err != nil || again != d {
				t.Errorf("the duration %q is %s, which reads as %s, %v", s, d, again, err)
			}
		}
		if i, err := muster.ParseIndex(s); err == nil && i > 1<<53 {
			t.Errorf("the index %q is let through as %d", s, i)
		}
		if low, high, err := muster.ParseExpect(s); err == nil && low > high {
			t.Errorf("%q expects from %d to %d", s, low, high)
		}
		_, _ = muster.ParseTTL(s)
		_, _, _ = muster.ParseETag(s)
	})
}
