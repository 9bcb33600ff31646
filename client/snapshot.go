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
)

const (
	snapshotFormat = 1
	// saveEvery is how often the same view is written at most.
	saveEvery = time.Second
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
func (f *feed) write(service string, v *muster.View) (err error) {
	b, err := json.Marshal(snapshot{Format: snapshotFormat, Saved: time.Now().UTC(), View: v})
	if err != nil {
		return fmt.Errorf("encoding a snapshot: %w", err)
	}
	if err := os.MkdirAll(f.c.cfg.SnapshotDir, 0o700); err != nil {
		return fmt.Errorf("making the snapshot directory: %w", err)
	}
	tmp, err := os.CreateTemp(f.c.cfg.SnapshotDir, ".tmp-*") // with mode 0600
	if err != nil {
		return fmt.Errorf("making a snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("writing a snapshot: %w", err)
	}
	if err = os.Rename(tmp.Name(), f.snapshotPath(service)); err != nil {
		return fmt.Errorf("putting a snapshot in its place: %w", err)
	}
	return nil
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
