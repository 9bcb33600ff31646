package httpapi

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/muster-registry/muster"
)

// step is one token of a JSON pointer: the name of a member, or the place of an
// element.
type step struct {
	name    string
	place   int
	element bool
}

type fault struct {
	code muster.Code
	muster.FieldError
	hint string
}

func (d *decoder) fault(code muster.Code, hint, format string, args ...any) {
	if len(d.faults) < maxFaults {
		d.faults = append(d.faults, fault{code, muster.FieldError{Pointer: d.pointer(), Detail: fmt.Sprintf(format, args...)}, hint})
	}
}

func (d *decoder) err() error {
	if len(d.faults) == 0 {
		return nil
	}
	first := d.faults[0]
	e := &muster.Error{Code: first.code, Detail: strings.TrimPrefix(first.Pointer, "/") + ": " + first.Detail, Hint: first.hint}
	for _, f := range d.faults {
		e.Fields = append(e.Fields, f.FieldError)
	}
	return e
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

func (d *decoder) pointer() string {
	var b strings.Builder
	for _, s := range d.path {
		b.WriteByte('/')
		if s.element {
			b.WriteString(strconv.Itoa(s.place))
		} else {
			b.WriteString(pointerEscapes.Replace(clip(s.name)))
		}
	}
	return b.String()
}

// within runs f with one more step on the path.
func (d *decoder) within(s step, f func() error) error {
	d.path = append(d.path, s)
	err := f()
	d.path = d.path[:len(d.path)-1]
	return err
}

// fieldCodes are the codes of a value of the wrong kind, by the name of the field.
var fieldCodes = map[string]muster.Code{
	"namespace": muster.CodeInvalidName, "service": muster.CodeInvalidName, "id": muster.CodeInvalidName,
	"address": muster.CodeInvalidAddress, "port": muster.CodeInvalidPort, "ports": muster.CodeInvalidPort,
	"weight": muster.CodeInvalidPort, "ttl": muster.CodeTTLOutOfRange, "remove_after": muster.CodeInvalidDuration,
	"until": muster.CodeInvalidDuration, "incarnation": muster.CodeInvalidIndex, "checks": muster.CodeInvalidCheck,
}

// code is the code of a value of the wrong kind at the current path: that of the
// outermost field that has one.
func (d *decoder) code() muster.Code {
	for _, s := range d.path {
		if c, ok := fieldCodes[s.name]; ok {
			return c
		}
	}
	return muster.CodeInvalidJSON
}

func (d *decoder) wrongKind(raw []byte, want string) {
	d.fault(d.code(), "", "%s is not %s", clip(string(raw)), want)
}

// clip shortens text of a user's that is quoted back to him.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "�")
}
