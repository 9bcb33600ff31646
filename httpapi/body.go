package httpapi

import (
	"bytes"
	"errors"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/muster-registry/muster"
)

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// decode reads the body of at most limit bytes, one JSON object, into the struct
// that into points to.
func (c *call) decode(into any, limit int64) error {
	if err := checkMedia(c.r.Header); err != nil {
		return err
	}
	buf := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(buf)
	buf.Reset()
	if err := c.readBody(buf, limit); err != nil {
		return err
	}
	return decodeJSON(buf.Bytes(), into) // which copies what it keeps
}

func (c *call) readBody(buf *bytes.Buffer, limit int64) error {
	tooLarge := muster.Errorf(muster.CodeBodyTooLarge, "the body is longer than %d bytes", limit)
	if c.r.ContentLength > limit {
		return tooLarge
	}
	// The deadline is for a client that sends its body drop by drop. It must be
	// taken off again, or it would end the watch for the client's leaving.
	if c.r.ContentLength == 0 {
		return nil
	}
	rc := http.NewResponseController(c.w)
	_ = rc.SetReadDeadline(time.Now().Add(muster.BodyTimeout))
	defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
	watched := c.watchBody(rc)
	_, err := buf.ReadFrom(http.MaxBytesReader(c.w, c.r.Body, limit))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return watched.end(tooLarge)
	}
	if err != nil {
		c.bodyBroken = true
		err = malformedBody(err)
	}
	if err = watched.end(err); err == nil {
		c.bodyRead = true
	}
	return err
}

// boundBody sees to it that an answer does not wait for ever for what nobody has read
// of the body: net/http reads some of it before it answers. What came too slowly to be
// read is not waited for at all.
func (c *call) boundBody() {
	if c.r.ContentLength == 0 || c.bodyRead {
		return
	}
	until := time.Now().Add(muster.BodyTimeout)
	if c.bodyBroken {
		c.w.Header().Set("Connection", "close")
		until = longAgo
	}
	_ = http.NewResponseController(c.w).SetReadDeadline(until)
}

// endBody is boundBody for an answer whose place is held while it is written: the
// connection ends with it, so that nothing is read of the body before it.
func (c *call) endBody() {
	if c.r.ContentLength != 0 && !c.bodyRead {
		c.w.Header().Set("Connection", "close")
	}
	c.boundBody()
}

func malformedBody(err error) error {
	return muster.Errorf(muster.CodeMalformedRequest, "the body could not be read: it ends early, comes too slowly, or is not framed well").WithCause(err)
}

// checkMedia refuses what is not JSON as it is. curl sends its own default type
// with -d, and many leave the type out.
func checkMedia(h http.Header) error {
	for _, enc := range h["Content-Encoding"] {
		if !strings.EqualFold(enc, "identity") && enc != "" {
			return muster.Errorf(muster.CodeUnsupportedMediaType, "the body has a Content-Encoding").WithHint("send it as it is")
		}
	}
	types := h[headerType]
	if len(types) == 0 || len(types) == 1 && (types[0] == "" || types[0] == "application/json") {
		return nil
	}
	bad := muster.Errorf(muster.CodeUnsupportedMediaType, "the Content-Type is not application/json")
	if len(types) > 1 {
		return bad
	}
	media, params, err := mime.ParseMediaType(types[0])
	if err != nil || media != "application/json" && media != "application/x-www-form-urlencoded" {
		return bad
	}
	if cs := params["charset"]; cs != "" && !strings.EqualFold(cs, "utf-8") && !strings.EqualFold(cs, "us-ascii") {
		return bad.WithHint("JSON is UTF-8")
	}
	return nil
}
