package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/muster-registry/muster"
)

// Backups is what the routes ask of whoever takes backups and brings them back.
type Backups interface {
	// Backup takes the whole state at one index; what it answers writes it out.
	Backup(ctx context.Context, o muster.ReadOptions) (io.WriterTo, muster.ReadInfo, error)
	// Restore replaces all content by a backup of total bytes. want is the SHA-256
	// it must have; nil: any.
	Restore(ctx context.Context, who muster.Caller, total uint64, src io.Reader, want []byte) (muster.Written, error)
}

// headerSum is, in hex, the SHA-256 of a backup: the trailer of one that is sent,
// and a header, if the client likes, of one that comes back.
const headerSum = "Muster-Sha256"

// snapshotReadTimeout is how long the next bytes of a backup may take to arrive.
const snapshotReadTimeout = 30 * time.Second

// getSnapshot answers GET /v1/cluster/snapshot.
func (s *Server) getSnapshot(c *call) error {
	ctx, cancel, o, err := c.readContext()
	if err != nil {
		return err
	}
	defer cancel()
	backup, info, err := s.backups.Backup(ctx, o)
	if err != nil {
		return err
	}
	c.setRead(info)
	h := c.w.Header()
	h[headerType] = typeSnapshot
	h.Set("Content-Disposition", `attachment; filename="muster-`+strconv.FormatUint(info.Index, 10)+`.snapshot"`)
	if c.r.Method == http.MethodHead {
		return c.empty(http.StatusOK)
	}
	h.Set("Trailer", headerSum)
	c.status, c.waited = http.StatusOK, true
	c.endBody()
	c.w.WriteHeader(http.StatusOK)
	sum := sha256.New()
	if c.sent, err = backup.WriteTo(io.MultiWriter(c.w, sum)); err != nil {
		panic(http.ErrAbortHandler) // the client has gone; it must not take this for the end
	}
	h.Set(headerSum, hex.EncodeToString(sum.Sum(nil)))
	return nil
}

// putSnapshot answers PUT /v1/cluster/snapshot: the content of the registry is
// replaced by the backup in the body.
func (s *Server) putSnapshot(c *call) error {
	var want []byte
	if text := c.r.Header.Get(headerSum); text != "" {
		var err error
		if want, err = hex.DecodeString(text); err != nil || len(want) != sha256.Size {
			return muster.Errorf(muster.CodeMalformedRequest, "the header %s is not a SHA-256 in hex", headerSum)
		}
	}
	who, err := c.caller()
	if err != nil {
		return err
	}
	switch n := c.r.ContentLength; {
	case n < 0:
		return muster.Errorf(muster.CodeMalformedRequest, "the request does not say how long the backup is").
			WithHint("send a Content-Length: curl -T FILE does, and muster snapshot restore FILE")
	case n == 0:
		return muster.Errorf(muster.CodeMalformedRequest, "the body is empty").WithHint("send a backup, as GET of this route gives it")
	case n > muster.MaxSnapshotBytes:
		return muster.Errorf(muster.CodeBodyTooLarge, "the backup is longer than %d bytes", int64(muster.MaxSnapshotBytes))
	}
	c.waited = true
	rc := http.NewResponseController(c.w)
	defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
	body := &patientReader{r: c.r.Body, rc: rc}
	w, err := s.backups.Restore(c.r.Context(), who, uint64(c.r.ContentLength), body, want)
	c.setIndex(w.Index)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, restoredAnswer{Index: w.Index})
}

type restoredAnswer struct {
	Index uint64 `json:"index"`
}

// patientReader gives every read its own deadline.
type patientReader struct {
	r  io.Reader
	rc *http.ResponseController
}

func (p *patientReader) Read(b []byte) (int, error) {
	// Not all that is served here has deadlines; what has none waits.
	_ = p.rc.SetReadDeadline(time.Now().Add(snapshotReadTimeout))
	return p.r.Read(b)
}
