// Package durable puts files in their place: whoever reads one, meanwhile or after a
// crash or a power cut, finds the old content or the new, never a part. A file is
// written beside its place, flushed to the disk, given its name, and the directory that
// holds the name is flushed too.
//
// It is not for files that grow (the log has a room of its own), nor for locking: of
// two who write one file at once the later one stays. Everything but one File may be
// used concurrently. A crash may leave a part behind; Sweep removes those.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// suffix ends the names of files that are not in their place yet. Between the name
// they are to have and it stands a random number.
const suffix = ".part"

// File is a file on its way to its place. It is written like any; then Commit puts it
// there, or Discard removes it.
type File struct {
	*os.File
	place string
	done  bool
}

// Create begins the file that is to replace path, in the same directory and with
// exactly that mode, whatever the umask. Only the owner may read it until then.
func Create(path string, mode fs.FileMode) (*File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*"+suffix) // of mode 0600
	if err != nil {
		return nil, fmt.Errorf("making a file: %w", err)
	}
	d := &File{File: f, place: path}
	if mode != 0o600 {
		if err := f.Chmod(mode); err != nil {
			return nil, errors.Join(fmt.Errorf("making a file: %w", err), d.Discard())
		}
	}
	return d, nil
}

// Commit flushes the file to the disk, closes it and puts it in its place. After an
// error the old content is there and no part is left, unless it was only the directory
// that could not be flushed: then the new content is there, and may be lost by a power
// cut.
func (f *File) Commit() error {
	err := errors.Join(f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), f.place)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", f.place, err), f.Discard())
	}
	f.done = true
	return SyncDir(filepath.Dir(f.place))
}

// Discard closes and removes a file that was not committed; of one that was it does
// nothing, so that it can be deferred.
func (f *File) Discard() error {
	if f.done {
		return nil
	}
	f.done = true
	_ = f.Close() // of what is thrown away
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("removing a part: %w", err)
	}
	return nil
}

// WriteFile replaces path by content, with exactly that mode.
func WriteFile(path string, content []byte, mode fs.FileMode) error {
	f, err := Create(path, mode)
	if err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", path, err), f.Discard())
	}
	return f.Commit()
}

// SyncDir flushes a directory: the names in it outlive a power cut from then on.
// Windows flushes no directories, and keeps their names by itself.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("opening the directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("flushing the directory %s: %w", dir, err)
	}
	return nil
}

// Sweep removes what crashes left behind of files whose names begin with prefix: the
// parts that nobody has written to for age. With an age of 0 the caller knows that
// nobody else writes such files there. A directory that is missing holds none.
func Sweep(dir, prefix string, age time.Duration) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for parts: %w", err)
	}
	var failed error
	for _, e := range entries {
		if n := e.Name(); !e.Type().IsRegular() || !strings.HasPrefix(n, prefix) || !strings.HasSuffix(n, suffix) {
			continue
		}
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < age { // it is gone, or may be at work
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, fmt.Errorf("removing a part: %w", err))
		}
	}
	return failed
}
