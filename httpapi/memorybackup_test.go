package httpapi_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"

	"github.com/muster-registry/muster"
)

// A backup of memory is whatever was restored last.

func (m *memory) Backup(ctx context.Context, _ muster.ReadOptions) (io.WriterTo, muster.ReadInfo, error) {
	if err := m.begin(ctx); err != nil {
		return nil, muster.ReadInfo{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.NewReader(m.backup), muster.ReadInfo{Index: max(m.index, 1)}, nil
}

func (m *memory) Restore(ctx context.Context, _ muster.Caller, total uint64, src io.Reader, want []byte) (muster.Written, error) {
	if err := m.begin(ctx); err != nil {
		return muster.Written{}, err
	}
	b := make([]byte, total)
	if _, err := io.ReadFull(src, b); err != nil {
		return muster.Written{}, errors.Join(muster.Errorf(muster.CodeMalformedRequest, "the backup ended early"), err)
	}
	if sum := sha256.Sum256(b); want != nil && !bytes.Equal(sum[:], want) {
		return muster.Written{}, muster.Errorf(muster.CodeConflict, "the backup has another SHA-256")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.backup = b
	m.index++
	return muster.Written{Index: m.index}, nil
}
