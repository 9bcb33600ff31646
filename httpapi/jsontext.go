package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/muster-registry/muster"
)

// text is a strict reader of one JSON text (RFC 8259). encoding/json takes the
// last of two equal keys, takes keys in any case and replaces what is not UTF-8;
// a registry that two programs read differently is a hole, so this reader
// refuses all of that. It reads the text once, keeps no copy and builds no tree.
type text struct {
	data  []byte
	pos   int
	depth int
}

// syntaxError ends the reading: what follows cannot be made sense of.
type syntaxError struct {
	offset int
	detail string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("%s (at byte %d)", e.detail, e.offset) }

func (t *text) bad(format string, args ...any) error {
	return &syntaxError{offset: t.pos, detail: fmt.Sprintf(format, args...)}
}

// peek skips white space and returns the next byte, 0 at the end.
func (t *text) peek() byte {
	for t.pos < len(t.data) {
		switch c := t.data[t.pos]; c {
		case ' ', '\t', '\n', '\r':
			t.pos++
		default:
			return c
		}
	}
	return 0
}

func (t *text) expect(c byte) error {
	if t.peek() != c || t.pos >= len(t.data) {
		return t.unexpected(fmt.Sprintf("%q", c))
	}
	t.pos++
	return nil
}

func (t *text) unexpected(want string) error {
	if t.peek(); t.pos >= len(t.data) {
		return t.bad("the text ends where %s was expected", want)
	}
	r, _ := utf8.DecodeRune(t.data[t.pos:])
	return t.bad("%q stands where %s was expected", r, want)
}

// open enters an object or an array.
func (t *text) open(c byte) error {
	if t.depth++; t.depth > muster.MaxJSONDepth {
		return t.bad("objects and arrays are nested more than %d deep", muster.MaxJSONDepth)
	}
	return t.expect(c)
}

// more steps to the next element of what open entered, first to its first, and
// reports false once it has passed the closing byte.
func (t *text) more(first bool, closing byte) (bool, error) {
	c := t.peek()
	if c == closing {
		t.pos++
		t.depth--
		return false, nil
	}
	if first {
		return true, nil
	}
	if c != ',' {
		return false, t.unexpected(fmt.Sprintf("a comma or %q", closing))
	}
	t.pos++
	if t.peek() == closing {
		return false, t.bad("a comma stands before %q", closing)
	}
	return true, nil
}

// key reads the name of a member and the colon after it.
func (t *text) key() ([]byte, error) {
	if t.peek() != '"' {
		return nil, t.unexpected("a member's name in quotes")
	}
	k, err := t.str()
	if err != nil {
		return nil, err
	}
	return k, t.expect(':')
}

// str reads a string and returns its value, which is a piece of the text where
// nothing in it is escaped. That the text is UTF-8 was checked at once for all.
func (t *text) str() ([]byte, error) {
	start := t.pos + 1
	for i := start; i < len(t.data); i++ {
		switch c := t.data[i]; {
		case c == '"':
			t.pos = i + 1
			return t.data[start:i], nil
		case c == '\\':
			return t.escaped(start, i)
		case c < 0x20:
			t.pos = i
			return nil, t.bad("a control character in a string is not escaped")
		}
	}
	t.pos = len(t.data)
	return nil, t.bad("the text ends within a string")
}

func (t *text) escaped(start, i int) ([]byte, error) {
	out := append(make([]byte, 0, 2*(i-start)+16), t.data[start:i]...)
	for i < len(t.data) {
		c := t.data[i]
		switch {
		case c == '"':
			t.pos = i + 1
			return out, nil
		case c < 0x20:
			t.pos = i
			return nil, t.bad("a control character in a string is not escaped")
		case c != '\\':
			out = append(out, c)
			i++
			continue
		}
		t.pos = i
		r, n, err := unescape(t.data[i:])
		if err != nil {
			return nil, t.bad("%s", err)
		}
		out = utf8.AppendRune(out, r)
		i += n
	}
	t.pos = len(t.data)
	return nil, t.bad("the text ends within a string")
}

var errEscape = errors.New("a string holds an escape that JSON does not know")

// unescape reads the escape that b begins with and its length.
func unescape(b []byte) (rune, int, error) {
	if len(b) < 2 {
		return 0, 0, errEscape
	}
	switch c := b[1]; c {
	case '"', '\\', '/':
		return rune(c), 2, nil
	case 'b':
		return '\b', 2, nil
	case 'f':
		return '\f', 2, nil
	case 'n':
		return '\n', 2, nil
	case 'r':
		return '\r', 2, nil
	case 't':
		return '\t', 2, nil
	case 'u':
		r := hex4(b[2:])
		if r < 0 {
			return 0, 0, errEscape
		}
		if !utf16.IsSurrogate(r) {
			return r, 6, nil
		}
		if len(b) >= 12 && b[6] == '\\' && b[7] == 'u' {
			if pair := utf16.DecodeRune(r, hex4(b[8:])); pair != utf8.RuneError {
				return pair, 12, nil
			}
		}
		return 0, 0, errors.New("a string holds half a surrogate pair")
	}
	return 0, 0, errEscape
}

// hex4 reads four hexadecimal digits, -1 where there are none.
func hex4(b []byte) rune {
	if len(b) < 4 {
		return -1
	}
	var r rune
	for _, c := range b[:4] {
		r <<= 4
		switch {
		case '0' <= c && c <= '9':
			r |= rune(c - '0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r |= rune(c|0x20-'a') + 10
		default:
			return -1
		}
	}
	return r
}

// number reads a number and returns its literal.
func (t *text) number() ([]byte, error) {
	start := t.pos
	digits := func() bool {
		from := t.pos
		for t.pos < len(t.data) && '0' <= t.data[t.pos] && t.data[t.pos] <= '9' {
			t.pos++
		}
		return t.pos > from
	}
	at := func(set string) bool { return t.pos < len(t.data) && bytes.IndexByte([]byte(set), t.data[t.pos]) >= 0 }
	if at("-") {
		t.pos++
	}
	if at("0") {
		t.pos++
	} else if !digits() {
		return nil, t.unexpected("a digit")
	}
	if at("0123456789") {
		return nil, t.bad("a number begins with 0")
	}
	if at(".") {
		t.pos++
		if !digits() {
			return nil, t.unexpected("a digit")
		}
	}
	if at("eE") {
		t.pos++
		if at("+-") {
			t.pos++
		}
		if !digits() {
			return nil, t.unexpected("a digit")
		}
	}
	return t.data[start:t.pos], nil
}

// literal reads true, false or null.
func (t *text) literal() ([]byte, error) {
	for _, l := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(t.data[t.pos:], []byte(l)) {
			t.pos += len(l)
			return t.data[t.pos-len(l) : t.pos], nil
		}
	}
	return nil, t.unexpected("a value")
}

// skip reads any value and returns its text. What it skips is held to the same
// rules; a key that comes twice is reported through twice.
func (t *text) skip(twice func(key string)) ([]byte, error) {
	c := t.peek()
	start := t.pos
	var err error
	switch {
	case c == '{':
		err = t.skipObject(twice)
	case c == '[':
		if err = t.open('['); err != nil {
			return nil, err
		}
		var ok bool
		for first := true; ; first = false {
			if ok, err = t.more(first, ']'); !ok {
				break
			}
			if _, err = t.skip(twice); err != nil {
				return nil, err
			}
		}
	case c == '"':
		_, err = t.str()
	case c == '-' || '0' <= c && c <= '9':
		_, err = t.number()
	default:
		_, err = t.literal()
	}
	return t.data[start:t.pos], err
}

func (t *text) skipObject(twice func(key string)) error {
	if err := t.open('{'); err != nil {
		return err
	}
	var seen map[string]bool
	for first := true; ; first = false {
		ok, err := t.more(first, '}')
		if !ok || err != nil {
			return err
		}
		k, err := t.key()
		if err != nil {
			return err
		}
		if seen == nil {
			seen = map[string]bool{}
		}
		if seen[string(k)] {
			twice(string(k))
		}
		seen[string(k)] = true
		if _, err := t.skip(twice); err != nil {
			return err
		}
	}
}
