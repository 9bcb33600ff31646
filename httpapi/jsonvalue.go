package httpapi

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/muster-registry/muster"
)

// maxFaults is how many faults of one body are told at once.
const maxFaults = 16

// decodeJSON reads data, which is one JSON object, into the struct that into
// points to, strictly: no unknown, repeated or wrongly cased name, no value of the
// wrong kind, nothing after the object. A null leaves its field as it is. The
// error is a *muster.Error with the pointer of each fault; into is then half
// written and not to be used.
func decodeJSON(data []byte, into any) error {
	if !utf8.Valid(data) {
		return muster.Errorf(muster.CodeInvalidJSON, "the body is not UTF-8")
	}
	d := &decoder{text: text{data: data}}
	if d.text.peek(); d.text.pos == len(data) {
		return muster.Errorf(muster.CodeInvalidJSON, "the body is empty").WithHint("send a JSON object")
	}
	if d.text.peek() != '{' {
		return muster.Errorf(muster.CodeInvalidJSON, "the body is not a JSON object")
	}
	v := reflect.ValueOf(into).Elem()
	if err := d.object(v, planOf(v.Type())); err != nil {
		return muster.Errorf(muster.CodeInvalidJSON, "%s", err)
	}
	if d.text.peek(); d.text.pos != len(data) {
		return muster.Errorf(muster.CodeInvalidJSON, "something follows the JSON object (at byte %d)", d.text.pos)
	}
	return d.err()
}

// decoder fills Go values from a text. What is merely wrong is gathered in faults
// and read on from; what cannot be read is returned as a syntaxError.
type decoder struct {
	text   text
	path   []step
	faults []fault
}

func (d *decoder) skip() ([]byte, error) {
	return d.text.skip(func(key string) {
		d.fault(muster.CodeDuplicateField, "", "the name %q comes twice", clip(key))
	})
}

// refuse skips a value that is not what was wanted.
func (d *decoder) refuse(want string) error {
	raw, err := d.skip()
	if err == nil {
		d.wrongKind(raw, want)
	}
	return err
}

// null skips a null, if one comes next.
func (d *decoder) null() (bool, error) {
	if d.text.peek() != 'n' {
		return false, nil
	}
	_, err := d.text.literal()
	return true, err
}

func (d *decoder) object(v reflect.Value, p *plan) error {
	if err := d.text.open('{'); err != nil {
		return err
	}
	var seen uint64
	for first := true; ; first = false {
		ok, err := d.text.more(first, '}')
		if !ok || err != nil {
			return err
		}
		k, err := d.text.key()
		if err != nil {
			return err
		}
		n, known := p.byName[string(k)]
		if !known {
			err = d.within(step{name: string(k)}, func() error { return d.unknown(p) })
		} else {
			err = d.member(v, p.fields[n], seen&(1<<n) != 0)
			seen |= 1 << n
		}
		if err != nil {
			return err
		}
	}
}

func (d *decoder) member(v reflect.Value, f field, twice bool) error {
	d.path = append(d.path, step{name: f.name})
	defer func() { d.path = d.path[:len(d.path)-1] }()
	if twice {
		d.fault(muster.CodeDuplicateField, "", "comes twice")
	}
	if twice || f.ours {
		_, err := d.skip()
		return err
	}
	if null, err := d.null(); null || err != nil {
		return err
	}
	return d.value(v.Field(f.index))
}

// unknown skips a member whose name, the last of the path, p does not have.
func (d *decoder) unknown(p *plan) error {
	name, hint := d.path[len(d.path)-1].name, ""
	for _, f := range p.fields {
		if strings.EqualFold(f.name, name) {
			hint = fmt.Sprintf("did you mean %q? Names are told apart by case", f.name)
		}
	}
	d.fault(muster.CodeUnknownField, hint, "is not a field that is known here")
	_, err := d.skip()
	return err
}

// value reads what comes next into v; it is not null.
func (d *decoder) value(v reflect.Value) error {
	switch into := v.Addr().Interface().(type) {
	case *[]string:
		return d.strings(into)
	case *map[string]string:
		return fill(d, into, d.str)
	case *map[string]int:
		return fill(d, into, func() (int, error) {
			n, err := d.integer(strconv.IntSize, true)
			return int(n), err
		})
	case *time.Time:
		return d.time(into)
	case json.Unmarshaler:
		raw, err := d.skip()
		if err == nil {
			d.foreign(into.UnmarshalJSON(raw), raw)
		}
		return err
	case encoding.TextUnmarshaler:
		if d.text.peek() != '"' {
			return d.refuse("a string")
		}
		s, err := d.text.str()
		if err == nil {
			d.foreign(into.UnmarshalText(s), s)
		}
		return err
	}
	return d.kind(v)
}

func (d *decoder) kind(v reflect.Value) error {
	switch v.Kind() {
	case reflect.String:
		s, err := d.str()
		v.SetString(s)
		return err
	case reflect.Bool:
		if c := d.text.peek(); c != 't' && c != 'f' {
			return d.refuse("true or false")
		}
		l, err := d.text.literal()
		v.SetBool(len(l) == len("true"))
		return err
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := d.integer(v.Type().Bits(), true)
		v.SetInt(int64(n))
		return err
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := d.integer(v.Type().Bits(), false)
		v.SetUint(n)
		return err
	case reflect.Pointer:
		e := reflect.New(v.Type().Elem())
		v.Set(e)
		return d.value(e.Elem())
	case reflect.Slice:
		return d.list(v)
	case reflect.Struct:
		if d.text.peek() != '{' {
			return d.refuse("an object")
		}
		p := planOf(v.Type())
		if p.preset != nil {
			p.preset(v)
		}
		return d.object(v, p)
	}
	panic("httpapi: no request has a field of type " + v.Type().String())
}

func (d *decoder) time(into *time.Time) error {
	raw, err := d.skip()
	if err == nil && into.UnmarshalJSON(raw) != nil {
		d.wrongKind(raw, "a time such as \"2026-01-02T03:04:05Z\"")
	}
	return err
}

// foreign notes what a type of its own says of its value.
func (d *decoder) foreign(err error, raw []byte) {
	if err == nil {
		return
	}
	if e, ok := err.(*muster.Error); ok {
		d.fault(e.Code, e.Hint, "%s", e.Detail)
		return
	}
	d.wrongKind(raw, "what is wanted here")
}

func (d *decoder) str() (string, error) {
	if d.text.peek() != '"' {
		return "", d.refuse("a string")
	}
	s, err := d.text.str()
	return string(s), err
}

// integer reads a whole number that fits bits; a signed one comes back as the
// bits of an int64.
func (d *decoder) integer(bits int, signed bool) (uint64, error) {
	if c := d.text.peek(); c != '-' && (c < '0' || c > '9') {
		return 0, d.refuse("a whole number")
	}
	lit, err := d.text.number()
	if err != nil {
		return 0, err
	}
	var n uint64
	if signed {
		var i int64
		i, err = strconv.ParseInt(string(lit), 10, bits)
		n = uint64(i)
	} else {
		n, err = strconv.ParseUint(string(lit), 10, bits)
	}
	if err != nil {
		d.wrongKind(lit, "a whole number in range")
		return 0, nil
	}
	return n, nil
}

func (d *decoder) strings(into *[]string) error {
	return d.elements(func(int) error {
		s, err := d.str()
		*into = append(*into, s)
		return err
	})
}

func (d *decoder) list(v reflect.Value) error {
	return d.elements(func(n int) error {
		v.Grow(1)
		v.SetLen(n + 1)
		return d.value(v.Index(n))
	})
}

// elements reads an array, and each of its elements by read.
func (d *decoder) elements(read func(n int) error) error {
	if d.text.peek() != '[' {
		return d.refuse("an array")
	}
	if err := d.text.open('['); err != nil {
		return err
	}
	for n := 0; ; n++ {
		ok, err := d.text.more(n == 0, ']')
		if !ok || err != nil {
			return err
		}
		err = d.within(step{place: n, element: true}, func() error {
			if d.text.peek() == 'n' {
				return d.refuse("allowed in an array")
			}
			return read(n)
		})
		if err != nil {
			return err
		}
	}
}

// fill reads an object into a map, and each of its values by read.
func fill[V any](d *decoder, into *map[string]V, read func() (V, error)) error {
	if d.text.peek() != '{' {
		return d.refuse("an object")
	}
	if err := d.text.open('{'); err != nil {
		return err
	}
	m := map[string]V{}
	*into = m
	for first := true; ; first = false {
		ok, err := d.text.more(first, '}')
		if !ok || err != nil {
			return err
		}
		k, err := d.text.key()
		if err != nil {
			return err
		}
		err = d.within(step{name: string(k)}, func() error {
			if _, twice := m[string(k)]; twice {
				d.fault(muster.CodeDuplicateField, "", "comes twice")
			}
			val, err := read()
			m[string(k)] = val
			return err
		})
		if err != nil {
			return err
		}
	}
}
