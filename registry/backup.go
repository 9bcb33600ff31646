package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/fsm"
)

const (
	// restoreChunk is how much of a backup one operation carries.
	restoreChunk = 192 << 10
	// chunkPatience is how long one operation of a restore is tried.
	chunkPatience = 20 * time.Second
)

// Backup takes the state as this node has it, at one index.
func (r *Registry) Backup(ctx context.Context, o muster.ReadOptions) (io.WriterTo, muster.ReadInfo, error) {
	stale, err := r.current(ctx, o)
	if err != nil {
		return nil, muster.ReadInfo{}, err
	}
	b := r.state.Backup()
	return b, muster.ReadInfo{Index: b.Index(), Stale: stale}, nil
}

// Restore replaces the content of the registry by a backup of total bytes, which it
// reads from src: by operations, so that no index goes back and every node does it
// at one moment. want is the SHA-256 the bytes must have; nil: any. Until it is over
// other writes are answered catching_up; where it fails nothing has changed.
func (r *Registry) Restore(ctx context.Context, who muster.Caller, total uint64, src io.Reader, want []byte) (muster.Written, error) {
	head := make([]byte, min(total, fsm.BackupHead))
	n, err := io.ReadFull(src, head)
	if err != nil {
		return muster.Written{}, muster.Errorf(muster.CodeMalformedRequest, "the backup ended after %d of %d bytes", n, total).WithCause(err)
	}
	// A wrong file is refused before other writes have to wait for it.
	if err := fsm.CheckBackupHead(head); err != nil {
		return muster.Written{}, muster.Errorf(muster.CodeMalformedRequest, "the backup cannot be read: %v", err).
			WithHint("muster snapshot inspect FILE")
	}
	src = io.MultiReader(bytes.NewReader(head), src)
	id := rand.Text()
	if _, err := r.restoreStep(ctx, fsm.RestoreBegin{ID: id, Total: total, Caller: who}); err != nil {
		return muster.Written{}, err
	}
	res, err := r.restoreAll(ctx, who, id, total, src, want)
	if err != nil {
		// Best effort: what is left is discarded by itself when it idles.
		actx, cancel := context.WithTimeout(context.WithoutCancel(ctx), chunkPatience)
		defer cancel()
		r.consensus.ProposeVital(actx, [][]byte{fsm.Encode(fsm.RestoreAbort{ID: id})})
	}
	return written(res), err
}

func (r *Registry) restoreAll(ctx context.Context, who muster.Caller, id string, total uint64, src io.Reader, want []byte) (fsm.Result, error) {
	sum := sha256.New()
	buf := make([]byte, restoreChunk)
	for offset := uint64(0); offset < total; {
		part := buf[:min(uint64(len(buf)), total-offset)]
		if _, err := io.ReadFull(src, part); err != nil {
			return fsm.Result{}, muster.Errorf(muster.CodeMalformedRequest, "the backup ended after %d of %d bytes", offset, total).WithCause(err)
		}
		sum.Write(part)
		if _, err := r.restoreStep(ctx, fsm.RestoreChunk{ID: id, Offset: offset, Data: part}); err != nil {
			return fsm.Result{}, err
		}
		offset += uint64(len(part))
	}
	got := [sha256.Size]byte(sum.Sum(nil))
	if want != nil && !bytes.Equal(want, got[:]) {
		return fsm.Result{}, muster.Errorf(muster.CodeConflict, "the backup that arrived has the SHA-256 %x, not %x", got, want).
			WithHint("it was damaged on its way or on disk: muster snapshot inspect FILE")
	}
	return r.restoreStep(ctx, fsm.RestoreCommit{ID: id, SHA256: got, Caller: who})
}

// restoreStep has one operation of a restore applied. A chunk, or a beginning, may
// be proposed again where it is not known whether it was: the state machine knows
// it by its id and offset. A commit may not: its restore is over with it.
func (r *Registry) restoreStep(ctx context.Context, op fsm.Op) (fsm.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, chunkPatience)
	defer cancel()
	_, commits := op.(fsm.RestoreCommit)
	for {
		octx, cancel := context.WithTimeout(ctx, muster.DefaultTimeout)
		res, err := r.propose(octx, op)
		cancel()
		if err == nil || commits || !errors.Is(err, muster.CodeOutcomeUnknown) {
			return res, err
		}
		if ctx.Err() != nil {
			return res, fmt.Errorf("restoring: %w", err)
		}
	}
}
