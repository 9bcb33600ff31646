package muster

import (
	"encoding/json"
	"strings"
	"time"
)

// Duration is a time.Duration that reads and writes as a string such as "10s"
// or "1m30s".
type Duration time.Duration

// String renders d as time.Duration does.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText renders d as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalJSON reads a string; a bare number, which has no unit, is refused.
func (d *Duration) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	v, err := durationJSON(b, CodeInvalidDuration)
	if err == nil {
		*d = Duration(v)
	}
	return err
}

// ParseDuration reads a duration that is not negative, such as "10s" or "1m30s".
func ParseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, Errorf(CodeInvalidDuration, "%q is not a duration", clip(s)).WithHint(`write a number and a unit, such as "10s" or "1m30s"`)
	case d < 0:
		return 0, Errorf(CodeInvalidDuration, "%q is negative", clip(s))
	}
	return d, nil
}

func durationJSON(b []byte, code Code) (time.Duration, error) {
	var s string
	if json.Unmarshal(b, &s) != nil {
		return 0, Errorf(code, "%s is not a duration", clip(string(b))).WithHint(`write a string with a unit, such as "10s"`)
	}
	d, err := ParseDuration(s)
	if err != nil {
		e := *err.(*Error)
		e.Code = code
		return 0, &e
	}
	return d, nil
}

// TTL is how long an instance or a lease lives after it was last heard from. The
// zero TTL means that none was given; NoTTL is a persistent instance without a
// lease and reads and writes as "none".
type TTL time.Duration

// NoTTL marks a persistent instance: it has no lease and does not expire.
const NoTTL TTL = -1

// Duration returns the TTL as a duration; 0 where there is none.
func (t TTL) Duration() time.Duration { return max(0, time.Duration(t)) }

// IsZero reports whether no TTL was given.
func (t TTL) IsZero() bool { return t == 0 }

// String renders t as time.Duration does, NoTTL as "none".
func (t TTL) String() string {
	if t == NoTTL {
		return "none"
	}
	return time.Duration(t).String()
}

// MarshalText renders t as String does.
func (t TTL) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalJSON reads a string: a duration from MinTTL to MaxTTL, or "none".
func (t *TTL) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "null":
		return nil
	case `"none"`:
		*t = NoTTL
		return nil
	}
	d, err := durationJSON(b, CodeTTLOutOfRange)
	if err != nil {
		return err
	}
	return t.set(d)
}

// ParseTTL reads a duration from MinTTL to MaxTTL, or "none".
func ParseTTL(s string) (TTL, error) {
	var t TTL
	b, err := json.Marshal(s)
	if err == nil {
		err = t.UnmarshalJSON(b)
	}
	return t, err
}

func (t *TTL) set(d time.Duration) error {
	if d < MinTTL || d > MaxTTL {
		return Errorf(CodeTTLOutOfRange, "ttl %s is not between %s and %s", d, MinTTL, MaxTTL).
			WithHint(`use a ttl from 1s to 24h, or "none" for an instance that never expires`)
	}
	*t = TTL(d)
	return nil
}

// clip shortens text of a user's that is quoted back to him.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "�")
}
