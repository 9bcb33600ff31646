package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/muster-registry/muster/durable"
	"github.com/muster-registry/muster/fsm"
)

// Backups says where and how often a node writes backups by itself.
type Backups struct {
	// Dir is the folder; empty: the node writes none.
	Dir string
	// Interval is the time from one to the next; 1 h if 0, at least 1 s.
	Interval time.Duration
	// Keep is how many of this node's are kept, the latest; 24 if 0.
	Keep int
}

const (
	defaultBackupInterval = time.Hour
	defaultBackupKeep     = 24
	backupRetry           = time.Minute
	backupSuffix          = ".snapshot"
)

// backupWriter writes a backup every so often, once the node has caught up.
type backupWriter struct {
	cfg   Backups
	id    string
	state *fsm.FSM
	ready func() bool
	log   *slog.Logger

	metrics *metrics
}

// withDefaults checks b, makes its folder, and fills in what is left out.
func (b Backups) withDefaults() (Backups, error) {
	if b.Interval == 0 {
		b.Interval = defaultBackupInterval
	}
	if b.Keep == 0 {
		b.Keep = defaultBackupKeep
	}
	if b.Interval < time.Second || b.Keep < 1 {
		return b, configError("backups every %s, of which %d are kept: --backup-interval is at least 1s, --backup-keep at least 1", b.Interval, b.Keep)
	}
	if b.Dir == "" {
		return b, nil
	}
	if err := os.MkdirAll(b.Dir, 0o700); err != nil {
		return b, configError("--backup-dir: %w", err)
	}
	return b, nil
}

// run writes backups until ctx ends.
func (b *backupWriter) run(ctx context.Context) {
	if b.cfg.Dir == "" {
		<-ctx.Done()
		return
	}
	for wait := min(b.cfg.Interval, backupRetry); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = b.cfg.Interval
		if !b.ready() {
			wait = min(wait, backupRetry)
			continue
		}
		name, err := b.write()
		if err != nil {
			b.metrics.backupFailures.Inc()
			b.log.Error("cannot write a backup", "dir", b.cfg.Dir, "err", err)
			wait = min(wait, backupRetry)
			continue
		}
		b.metrics.lastBackup.SetToCurrentTime()
		b.log.Info("wrote a backup", "file", name)
	}
}

// write writes one backup, which takes its name only once it is on the disk, and
// removes those that are too many.
func (b *backupWriter) write() (name string, err error) {
	backup := b.state.Backup()
	// Names sort by time.
	name = fmt.Sprintf("muster-%s-%s-%d%s", b.id, time.Now().UTC().Format("20060102T150405Z"), backup.Index(), backupSuffix)
	f, err := durable.Create(filepath.Join(b.cfg.Dir, name), 0o600)
	if err != nil {
		return "", err
	}
	if _, err = backup.WriteTo(f); err != nil {
		return "", errors.Join(err, f.Discard())
	}
	if err = f.Commit(); err != nil {
		return "", err
	}
	return name, b.prune()
}

// prune removes the backups that are too many, and what crashes left of others.
func (b *backupWriter) prune() error {
	entries, err := os.ReadDir(b.cfg.Dir)
	if err != nil {
		return err
	}
	var mine []string
	for _, e := range entries {
		if n := e.Name(); strings.HasPrefix(n, "muster-"+b.id+"-") && strings.HasSuffix(n, backupSuffix) {
			mine = append(mine, n)
		}
	}
	slices.Sort(mine)
	failed := durable.Sweep(b.cfg.Dir, "muster-"+b.id+"-", 0) // nobody else writes this node's
	for _, n := range mine[:max(0, len(mine)-b.cfg.Keep)] {
		failed = errors.Join(failed, os.Remove(filepath.Join(b.cfg.Dir, n)))
	}
	return failed
}
