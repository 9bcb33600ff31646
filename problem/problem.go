package problem

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/muster-registry/muster"
)

// ContentType is the media type of a rendered problem.
const ContentType = "application/problem+json"

const typePrefix = "urn:muster:problem:"

// kind is what a code looks like over HTTP.
type kind struct {
	status int
	title  string
}

var kinds = map[muster.Code]kind{
	muster.CodeMalformedRequest: {http.StatusBadRequest, "Malformed HTTP request"},
	muster.CodeInvalidJSON:      {http.StatusBadRequest, "Invalid JSON"},
	muster.CodeUnknownField:     {http.StatusBadRequest, "Unknown field"},
	muster.CodeDuplicateField:   {http.StatusBadRequest, "Field or parameter given twice"},
	muster.CodeInvalidName:      {http.StatusBadRequest, "Invalid name"},
	muster.CodeInvalidPath:      {http.StatusBadRequest, "Invalid path"},
	muster.CodeInvalidAddress:   {http.StatusBadRequest, "Invalid address"},
	muster.CodeInvalidPort:      {http.StatusBadRequest, "Invalid port or weight"},
	muster.CodeInvalidIndex:     {http.StatusBadRequest, "Invalid index or entity tag"},
	muster.CodeInvalidDuration:  {http.StatusBadRequest, "Invalid duration or time"},
	muster.CodeTTLOutOfRange:    {http.StatusBadRequest, "TTL out of range"},
	muster.CodeInvalidFilter:    {http.StatusBadRequest, "Invalid filter"},
	muster.CodeInvalidStrategy:  {http.StatusBadRequest, "Invalid strategy"},
	muster.CodeInvalidCheck:     {http.StatusBadRequest, "Invalid check"},
	muster.CodeMetadataTooLarge: {http.StatusBadRequest, "Metadata too large"},
	muster.CodeUnknownParameter: {http.StatusBadRequest, "Unknown query parameter or value"},
	muster.CodeConflictingField: {http.StatusBadRequest, "Conflicting field"},

	muster.CodeUnauthenticated: {http.StatusUnauthorized, "Unauthenticated"},
	muster.CodeForbidden:       {http.StatusForbidden, "Forbidden"},
	muster.CodeQuotaExceeded:   {http.StatusForbidden, "Quota exceeded"},

	muster.CodeUnknownService:   {http.StatusNotFound, "Unknown service"},
	muster.CodeUnknownInstance:  {http.StatusNotFound, "Unknown instance"},
	muster.CodeUnknownLease:     {http.StatusNotFound, "Unknown lease"},
	muster.CodeUnknownTicket:    {http.StatusNotFound, "Unknown ticket"},
	muster.CodeUnknownMember:    {http.StatusNotFound, "Unknown member"},
	muster.CodeUnknownKey:       {http.StatusNotFound, "Unknown key"},
	muster.CodeNotFound:         {http.StatusNotFound, "Not found"},
	muster.CodeMethodNotAllowed: {http.StatusMethodNotAllowed, "Method not allowed"},
	muster.CodeCursorGone:       {http.StatusGone, "Cursor gone"},

	muster.CodeFenced:             {http.StatusConflict, "Fenced by a newer incarnation"},
	muster.CodeConflict:           {http.StatusConflict, "Conflict"},
	muster.CodePreconditionFailed: {http.StatusPreconditionFailed, "Precondition failed"},

	muster.CodeBodyTooLarge:         {http.StatusRequestEntityTooLarge, "Body too large"},
	muster.CodeURITooLong:           {http.StatusRequestURITooLong, "URI too long"},
	muster.CodeUnsupportedMediaType: {http.StatusUnsupportedMediaType, "Unsupported media type"},
	muster.CodeUnknownHost:          {http.StatusMisdirectedRequest, "Unknown host"},
	muster.CodeHeadersTooLarge:      {http.StatusRequestHeaderFieldsTooLarge, "Headers too large"},

	muster.CodeRateLimited: {http.StatusTooManyRequests, "Rate limited"},

	muster.CodeNoLeader:     {http.StatusServiceUnavailable, "No leader"},
	muster.CodeOverloaded:   {http.StatusServiceUnavailable, "Overloaded"},
	muster.CodeCatchingUp:   {http.StatusServiceUnavailable, "Catching up"},
	muster.CodeBehind:       {http.StatusServiceUnavailable, "Behind the asked index"},
	muster.CodeTooStale:     {http.StatusServiceUnavailable, "Too stale"},
	muster.CodeNoInstance:   {http.StatusServiceUnavailable, "No instance to pick"},
	muster.CodeDiskFull:     {http.StatusServiceUnavailable, "Disk full"},
	muster.CodeShuttingDown: {http.StatusServiceUnavailable, "Shutting down"},

	muster.CodeOutcomeUnknown: {http.StatusGatewayTimeout, "Outcome unknown"},

	muster.CodeInternal: {http.StatusInternalServerError, "Internal error"},
}

// Status is the HTTP status of a code; 500 for one it does not know.
func Status(code muster.Code) int {
	if k, ok := kinds[code]; ok {
		return k.status
	}
	return http.StatusInternalServerError
}

// Title is the short, unchanging description of a code.
func Title(code muster.Code) string {
	if k, ok := kinds[code]; ok {
		return k.title
	}
	return kinds[muster.CodeInternal].title
}

// Problem is the wire form of an error.
type Problem struct {
	Type         string              `json:"type"`
	Title        string              `json:"title"`
	Status       int                 `json:"status"`
	Detail       string              `json:"detail,omitempty"`
	Instance     string              `json:"instance,omitempty"`
	Code         muster.Code         `json:"code"`
	RequestID    string              `json:"request_id,omitempty"`
	Hint         string              `json:"hint,omitempty"`
	Leader       string              `json:"leader,omitempty"`
	RetryAfterMS int64               `json:"retry_after_ms,omitempty"`
	Errors       []muster.FieldError `json:"errors,omitempty"`
}

// Of finds the coded error in err's chain. Any other error is a defect of ours:
// the user is told no more than that, and where the log says more.
func Of(err error) *muster.Error {
	if e, ok := errors.AsType[*muster.Error](err); ok {
		return e
	}
	return muster.Errorf(muster.CodeInternal, "the registry met an error of its own").
		WithHint("the log of the answering node has a line with this request id").WithCause(err)
}

// New renders err. instance is the path of the request that met it, requestID
// its id; both may be empty.
func New(err error, instance, requestID string) *Problem {
	e := Of(err)
	if _, known := kinds[e.Code]; !known {
		e = Of(errors.New("no such code: " + string(e.Code)))
	}
	p := &Problem{
		Type: typePrefix + string(e.Code), Title: Title(e.Code), Status: Status(e.Code), Detail: e.Detail,
		Instance: instance, Code: e.Code, RequestID: requestID, Hint: e.Hint, Leader: e.Leader, Errors: e.Fields,
	}
	if e.RetryAfter > 0 {
		p.RetryAfterMS = int64((e.RetryAfter + time.Millisecond - 1) / time.Millisecond)
	}
	return p
}

// maxRetryAfterMS bounds what a reader believes of retry_after_ms: an hour.
const maxRetryAfterMS = 3_600_000

// Err is the error that p renders.
func (p *Problem) Err() *muster.Error {
	return &muster.Error{
		Code: p.Code, Detail: p.Detail, Hint: p.Hint, Leader: p.Leader, Fields: p.Errors,
		RetryAfter: time.Duration(min(max(p.RetryAfterMS, 0), maxRetryAfterMS)) * time.Millisecond,
	}
}

// RetryAfter is the value of the Retry-After header that goes with p: whole
// seconds, rounded up, at least 1 where the status asks for one; "" for none.
func (p *Problem) RetryAfter() string {
	seconds := (p.RetryAfterMS + 999) / 1000
	if p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests {
		seconds = max(seconds, 1)
	}
	if seconds <= 0 {
		return ""
	}
	return strconv.FormatInt(seconds, 10)
}

// JSON is the body of the answer.
func (p *Problem) JSON() []byte {
	// Not json.Marshal: that writes the & of a hint's URL as \u0026.
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(p); err != nil { // only strings and numbers: cannot happen
		panic("problem: encoding: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// Decode reads the body of an answer whose status is 400 or above. A body that is
// no problem of ours, such as a proxy's page, gives an error that is made of the
// status alone; a code of a newer server is kept as it came. Decode never returns
// nil.
func Decode(status int, body []byte) *muster.Error {
	var p Problem
	if err := json.Unmarshal(body, &p); err == nil && p.Code != "" {
		return p.Err()
	}
	return muster.Errorf(foreign(status), "the answer was %d %s and told no more", status, http.StatusText(status))
}

// foreign is the code for an answer that is not Muster's own.
func foreign(status int) muster.Code {
	switch status {
	case http.StatusUnauthorized, http.StatusProxyAuthRequired:
		return muster.CodeUnauthenticated
	case http.StatusForbidden:
		return muster.CodeForbidden
	case http.StatusNotFound:
		return muster.CodeNotFound
	case http.StatusMethodNotAllowed:
		return muster.CodeMethodNotAllowed
	case http.StatusConflict:
		return muster.CodeConflict
	case http.StatusPreconditionFailed:
		return muster.CodePreconditionFailed
	case http.StatusRequestEntityTooLarge:
		return muster.CodeBodyTooLarge
	case http.StatusRequestURITooLong:
		return muster.CodeURITooLong
	case http.StatusUnsupportedMediaType:
		return muster.CodeUnsupportedMediaType
	case http.StatusMisdirectedRequest:
		return muster.CodeUnknownHost
	case http.StatusRequestHeaderFieldsTooLarge:
		return muster.CodeHeadersTooLarge
	case http.StatusTooManyRequests:
		return muster.CodeRateLimited
	case http.StatusServiceUnavailable:
		return muster.CodeOverloaded
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		// A proxy lost the request on its way: a write may have arrived.
		return muster.CodeOutcomeUnknown
	}
	if status >= 400 && status < 500 {
		return muster.CodeMalformedRequest
	}
	return muster.CodeInternal
}
