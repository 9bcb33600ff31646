package chaos

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"time"
)

// restore saves a backup and brings it back a while later, while the clients go on.
func restore(f *injection) error {
	n, err := f.pick(f.rng.IntN(2) == 0)
	if err != nil {
		return err
	}
	f.on(n)
	file := filepath.Join(f.dir, "backup.snapshot")
	span := &RestoreSpan{SaveCall: time.Now()}
	if _, err := n.muster(f.ctx, "snapshot", "save", file, "--addr", n.URL, "-o", "json"); err != nil {
		return broken("%v", err)
	}
	span.SaveReturn = time.Now()
	if err := f.wait(1, 4); err != nil {
		return err
	}
	span.RestoreCall = time.Now()
	f.span.Restore = span
	out, err := n.muster(f.ctx, "snapshot", "restore", file, "--yes", "--addr", strings.Join(f.c.URLs(), ","), "-o", "json")
	if err != nil {
		return broken("%v", err)
	}
	var said struct {
		Index uint64 `json:"index"`
	}
	if err := json.Unmarshal([]byte(out), &said); err != nil || said.Index == 0 {
		return broken("a restore says %q (%v)", out, err)
	}
	span.RestoreReturn, span.Index = time.Now(), said.Index
	return f.wait(1, 3)
}
