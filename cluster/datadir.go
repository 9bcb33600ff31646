package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/muster-registry/muster/durable"
)

// The files of a data directory. Everything that makes a node itself is made in
// here: a directory that was emptied is a new member, never a forgetful old one.
const (
	lockFile     = "LOCK"
	versionFile  = "VERSION"
	identityFile = "identity.json"
	logFile      = "raft.db"
	snapshotsDir = "snapshots" // made by raft's snapshot store

	dataVersion = "muster-data 1"
)

// identity is what identityFile holds.
type identity struct {
	ID string `json:"id"`
	// Boot counts the starts on this directory. Peers refuse a lower one than
	// they have seen: it is an old copy, whose votes and log are forgotten history.
	Boot uint64 `json:"boot"`
	// ClusterID is the cluster this node last belonged to; "" before it knows.
	ClusterID string `json:"cluster_id,omitempty"`
	// Level is the feature level of what the log and the snapshots hold, where it is
	// not the first.
	Level uint64 `json:"feature_level,omitempty"`
}

// dataDir is an open data directory, held by its lock file.
type dataDir struct {
	path string
	lock *os.File
	boot uint64 // of this start; not written after open

	mu sync.Mutex // guards id and its file
	id identity
}

// openDataDir makes or opens the directory, locks it, and counts one more start of a
// build that knows feature levels up to known.
func openDataDir(path string, known uint64) (*dataDir, error) {
	if path == "" {
		return nil, exitErrorf(exitConfig, "no data directory given")
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, exitErrorf(exitIO, "making the data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, exitErrorf(exitIO, "the data directory %s is not writable: %w", path, err)
	}
	d := &dataDir{path: path, lock: lock}
	if err := d.open(known); err != nil {
		lock.Close()
		return nil, err
	}
	return d, nil
}

func (d *dataDir) open(known uint64) error {
	err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return exitErrorf(exitConfig, "the data directory %s is in use by another process: give each node a directory of its own", d.path)
	case err != nil:
		return exitErrorf(exitIO, "locking the data directory %s: %w", d.path, err)
	}
	// Nobody else writes here while the lock is held.
	if err := durable.Sweep(d.path, "", 0); err != nil {
		return exitErrorf(exitIO, "the data directory %s: %w", d.path, err)
	}
	if err := d.readIdentity(); err != nil {
		return err
	}
	if err := d.checkVersion(); err != nil {
		return err
	}
	if d.id.Level > known {
		return exitErrorf(exitConfig, "upgrade this node: %s holds data of feature level %d, and this version knows none above %d", d.path, d.id.Level, known)
	}
	d.id.Boot++
	d.boot = d.id.Boot
	if err := d.writeIdentity(d.id); err != nil {
		return exitErrorf(exitIO, "writing to the data directory: %w", err)
	}
	return nil
}

func (d *dataDir) readIdentity() error {
	b, err := os.ReadFile(d.file(identityFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(d.file(logFile)); err == nil {
			return exitErrorf(exitCorrupt, "%s holds %s but no %s: wipe the data directory and let the node join anew", d.path, logFile, identityFile)
		}
		d.id = identity{ID: randomHex(8)}
		return nil
	case err != nil:
		return exitErrorf(exitIO, "reading the data directory: %w", err)
	}
	if err := json.Unmarshal(b, &d.id); err != nil || d.id.ID == "" {
		return exitErrorf(exitCorrupt, "%s does not read back: wipe the data directory and let the node join anew", d.file(identityFile))
	}
	return nil
}

// checkVersion refuses a directory this build cannot read, and marks a new one.
func (d *dataDir) checkVersion() error {
	b, err := os.ReadFile(d.file(versionFile))
	switch {
	case errors.Is(err, fs.ErrNotExist) && d.id.Boot == 0:
		if err := durable.WriteFile(d.file(versionFile), []byte(dataVersion+"\n"), 0o600); err != nil {
			return exitErrorf(exitIO, "the data directory %s is not writable: %w", d.path, err)
		}
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return exitErrorf(exitCorrupt, "%s has lost its %s file: wipe the data directory and let the node join anew", d.path, versionFile)
	case err != nil:
		return exitErrorf(exitIO, "reading the data directory: %w", err)
	case strings.TrimSpace(string(b)) != dataVersion:
		return exitErrorf(exitConfig, "%s was written by another version of muster (%.40q, this build reads %q): use that version, or wipe the directory",
			d.path, strings.TrimSpace(string(b)), dataVersion)
	}
	return nil
}

// identity returns what the directory says of the node.
func (d *dataDir) identity() identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.id
}

// setClusterID remembers the cluster, so that the node says from its first word
// after a restart where it belongs.
func (d *dataDir) setClusterID(id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.id.ClusterID == id {
		return nil
	}
	next := d.id
	next.ClusterID = id
	return d.become(next)
}

// setLevel remembers the feature level, so that an older build knows before it reads
// anything that it is not for it.
func (d *dataDir) setLevel(level uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.id.Level >= level {
		return nil
	}
	next := d.id
	next.Level = level
	return d.become(next)
}

// become writes what the directory says of the node. The caller holds mu.
func (d *dataDir) become(next identity) error {
	if err := d.writeIdentity(next); err != nil {
		return err
	}
	d.id = next
	return nil
}

func (d *dataDir) writeIdentity(id identity) error {
	b, err := json.Marshal(id)
	if err != nil {
		return fmt.Errorf("encoding the identity: %w", err)
	}
	return durable.WriteFile(d.file(identityFile), append(b, '\n'), 0o600)
}

func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

// close lets go of the lock.
func (d *dataDir) close() error { return d.lock.Close() }

// randomHex returns n random bytes in hexadecimal.
func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
