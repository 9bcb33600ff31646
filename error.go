package muster

import (
	"errors"
	"fmt"
	"time"
)

// Code names a kind of failure. Codes are part of the wire contract: a program
// may branch on them, and they never change their meaning. A Code is itself an
// error, so that errors.Is(err, muster.CodeNoLeader) works on any *Error.
type Code string

// Error returns the code's text.
func (c Code) Error() string { return string(c) }

// The codes of a refused input (HTTP 400).
const (
	// CodeMalformedRequest: what came is not well-formed HTTP/1.1.
	CodeMalformedRequest Code = "malformed_request"
	CodeInvalidJSON      Code = "invalid_json"
	CodeUnknownField     Code = "unknown_field"
	CodeDuplicateField   Code = "duplicate_field"
	CodeInvalidName      Code = "invalid_name"
	CodeInvalidPath      Code = "invalid_path"
	CodeInvalidAddress   Code = "invalid_address"
	CodeInvalidPort      Code = "invalid_port"
	CodeInvalidIndex     Code = "invalid_index"
	CodeInvalidDuration  Code = "invalid_duration"
	CodeTTLOutOfRange    Code = "ttl_out_of_range"
	CodeInvalidFilter    Code = "invalid_filter"
	CodeInvalidStrategy  Code = "invalid_strategy"
	CodeInvalidCheck     Code = "invalid_check"
	CodeMetadataTooLarge Code = "metadata_too_large"
	CodeUnknownParameter Code = "unknown_parameter"
	CodeConflictingField Code = "conflicting_field"
)

// The codes of who may not (HTTP 401 and 403).
const (
	CodeUnauthenticated Code = "unauthenticated"
	CodeForbidden       Code = "forbidden"
	CodeQuotaExceeded   Code = "quota_exceeded"
)

// The codes of what is not there (HTTP 404, 405 and 410).
const (
	CodeUnknownService   Code = "unknown_service"
	CodeUnknownInstance  Code = "unknown_instance"
	CodeUnknownLease     Code = "unknown_lease"
	CodeUnknownTicket    Code = "unknown_ticket"
	CodeUnknownMember    Code = "unknown_member"
	CodeUnknownKey       Code = "unknown_key"
	CodeNotFound         Code = "not_found"
	CodeMethodNotAllowed Code = "method_not_allowed"
	CodeCursorGone       Code = "cursor_gone"
)

// The codes of a disagreement with what is stored (HTTP 409 and 412).
const (
	CodeFenced             Code = "fenced"
	CodeConflict           Code = "conflict"
	CodePreconditionFailed Code = "precondition_failed"
)

// The codes of a request of the wrong size or shape (HTTP 413 to 431).
const (
	CodeBodyTooLarge         Code = "body_too_large"
	CodeURITooLong           Code = "uri_too_long"
	CodeUnsupportedMediaType Code = "unsupported_media_type"
	CodeUnknownHost          Code = "unknown_host"
	CodeHeadersTooLarge      Code = "headers_too_large"
)

// CodeRateLimited says that the caller is to slow down (HTTP 429).
const CodeRateLimited Code = "rate_limited"

// The codes of a registry that cannot answer just now (HTTP 503): the request
// was not carried out and may be repeated after Retry-After.
const (
	CodeNoLeader     Code = "no_leader"
	CodeOverloaded   Code = "overloaded"
	CodeCatchingUp   Code = "catching_up"
	CodeBehind       Code = "behind"
	CodeTooStale     Code = "too_stale"
	CodeNoInstance   Code = "no_instance"
	CodeDiskFull     Code = "disk_full"
	CodeShuttingDown Code = "shutting_down"
)

// CodeOutcomeUnknown says that a write may or may not have happened (HTTP 504).
// Register, deregister and heartbeat are safe to repeat.
const CodeOutcomeUnknown Code = "outcome_unknown"

// CodeInternal is a defect of the registry itself (HTTP 500). No input is meant
// to produce it; the request id leads to the log line that says more.
const CodeInternal Code = "internal"

// FieldError says what is wrong with one field of a request.
type FieldError struct {
	// Pointer is the JSON pointer (RFC 6901) of the field, or the name of a
	// query parameter as "?name".
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

// Error is a failure a user can meet: a code for programs, a sentence for
// people. Detail and Hint never hold an internal cause; that is kept for errors.Is
// and for the log, and is not rendered to a client.
type Error struct {
	Code   Code
	Detail string
	// Hint says what to do about it; may be empty.
	Hint string
	// Leader is the API address of the leader, where knowing it helps.
	Leader string
	// RetryAfter is how long to wait before trying again; 0 says nothing.
	RetryAfter time.Duration
	Fields     []FieldError
	cause      error
}

// Errorf makes an Error whose detail is formatted as by fmt.Sprintf.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// WithHint returns e with a hint.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// WithCause returns e with an internal cause, for errors.Is and the log.
func (e *Error) WithCause(err error) *Error {
	c := *e
	c.cause = err
	return &c
}

// WithRetryAfter returns e with a time to wait before trying again.
func (e *Error) WithRetryAfter(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// Error renders the code, the detail and, for the log, the cause.
func (e *Error) Error() string {
	s := string(e.Code)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// Unwrap returns the internal cause, if there is one.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is e's Code, or an Error of the same code.
func (e *Error) Is(target error) bool {
	switch t := target.(type) {
	case Code:
		return e.Code == t
	case *Error:
		return e.Code == t.Code
	}
	return false
}

// CodeOf returns the code of err: that of the first *Error in its chain,
// CodeInternal for any other error, "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}
