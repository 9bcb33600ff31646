package logstore

import (
	"encoding/binary"
	"errors"
	"fmt"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// Set stores val under key; it is on the disk when Set returns.
func (s *Store) Set(key, val []byte) error {
	sealed := sealValue(key, val)
	err := s.write(opStable, func() error { return s.db.Set(key, sealed) })
	if err != nil {
		s.park()
	}
	return err
}

// Get returns the value of key. A key that was never set is the error "not
// found", by whose text raft recognises it.
func (s *Store) Get(key []byte) ([]byte, error) {
	val, err := s.readValue(key)
	if err == nil || errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return val, err
	}
	return nil, s.readFailed(err)
}

// SetUint64 stores a number under key.
func (s *Store) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// GetUint64 returns the number stored under key, or the error of Get.
func (s *Store) GetUint64(key []byte) (uint64, error) {
	val, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(val) != 8 {
		return 0, s.readFailed(s.badValue(key, "it is no number"))
	}
	return binary.BigEndian.Uint64(val), nil
}

// readValue is Get without consequences.
func (s *Store) readValue(key []byte) (val []byte, err error) {
	err = s.guard(func() (err error) {
		val, err = s.db.Get(key)
		return err
	})
	if err != nil {
		return nil, err
	}
	if val, err = unsealValue(key, val); err != nil {
		return nil, s.badValue(key, err.Error())
	}
	return val, nil
}

func (s *Store) badValue(key []byte, reason string) error {
	return &CorruptError{Path: s.path, Reason: fmt.Sprintf("stable value %q: %s", key, reason)}
}
