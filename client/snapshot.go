package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/durable"
)

const (
	snapshotFormat = 1
	// saveEvery is how often the same view is written at most.
	saveEvery = time.Second
	// partAge is when the part of a file is surely of a program that died: other
	// programs may keep their views in the same directory.
	partAge = time.Hour
)

// snapshot is a file of Config.SnapshotDir: what was known last of one service.
type snapshot struct {
	Format int          `json:"format"`
	Saved  time.Time    `json:"saved"`
	View   *muster.View `json:"view"`
}

// snapshotPath is the file of a service. The @ parts the names, which cannot hold
// one.
func (f *feed) snapshotPath(service string) string {
	return filepath.Join(f.c.cfg.SnapshotDir, f.namespace+"@"+service+".json")
}

// mark notes that the view of e is to be saved.
func (f *feed) mark(e *entry) {
	if f.c.cfg.SnapshotDir == "" {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unsaved[e] = true
	select {
	case f.save <- struct{}{}:
	default:
	}
}

// saving writes the views that changed, until ctx ends, and then the last of them.
func (f *feed) saving(ctx context.Context) {
	if err := durable.Sweep(f.c.cfg.SnapshotDir, f.namespace+"@", partAge); err != nil {
		f.c.cfg.Logger.Warn("what a crash left of a snapshot was not removed", "err", err)
	}
	for {
		select {
		case <-f.save:
		case <-ctx.Done():
			f.saveAll()
			return
		}
		f.saveAll()
		rest(ctx, nil, saveEvery)
	}
}

func (f *feed) saveAll() {
	f.mu.Lock()
	unsaved := f.unsaved
	f.unsaved = map[*entry]bool{}
	f.mu.Unlock()
	for e := range unsaved {
		if p := e.shown.Load(); p != nil {
			if err := f.write(e.key.Service, p.view); err != nil {
				f.c.cfg.Logger.Warn("a view was not saved", "service", e.key.Service, "err", err)
			}
		}
	}
}

// write replaces the file of a service as a whole: who reads it meanwhile, or after
// a crash, finds the old one or the new one.
func (f *feed) write(service string, v *muster.View) error {
	b, err := json.Marshal(snapshot{Format: snapshotFormat, Saved: time.Now().UTC(), View: v})
	if err != nil {
		return fmt.Errorf("encoding a snapshot: %w", err)
	}
	if err := os.MkdirAll(f.c.cfg.SnapshotDir, 0o700); err != nil {
		return fmt.Errorf("making the snapshot directory: %w", err)
	}
	return durable.WriteFile(f.snapshotPath(service), b, 0o600)
}

// recall shows what is on disk of the services of which nothing is known.
func (f *feed) recall() {
	if f.c.cfg.SnapshotDir == "" {
		return
	}
	for name, e := range f.watched() {
		if e.shown.Load() != nil {
			continue
		}
		switch v, err := f.load(name); {
		case err == nil:
			f.c.cfg.Logger.Warn("no node answers: a view from disk is shown", "service", name, "index", v.Index)
			e.recall(v)
		case !errors.Is(err, fs.ErrNotExist):
			f.c.cfg.Logger.Warn("a snapshot cannot be used", "service", name, "err", err)
		}
	}
}

// load reads the file of a service.
func (f *feed) load(service string) (*muster.View, error) {
	file, err := os.Open(f.snapshotPath(service))
	if err != nil {
		return nil, fmt.Errorf("opening a snapshot: %w", err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("reading a snapshot: %w", err)
	}
	var s snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("decoding a snapshot: %w", err)
	}
	if s.Format != snapshotFormat {
		return nil, fmt.Errorf("the snapshot is of format %d, not %d", s.Format, snapshotFormat)
	}
	return checked(s.View, muster.ServiceKey{Namespace: f.namespace, Service: service})
}
