package peer

import (
	"errors"
	"fmt"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/wire"
)

var (
	// ErrNotSent is in the chain of the error of a call that was certainly not
	// carried out: the peer could not be dialled or refused the connection, the
	// request was not written, or no handler was asked. Such a call may be made
	// again, here or elsewhere. Without it the call may have been carried out,
	// unless the error is a *muster.Error of the handler, which says so itself.
	ErrNotSent = errors.New("call not carried out")
	// ErrUnknownMethod is in the chain, beside ErrNotSent, when the peer does not
	// know the method; it may run another version.
	ErrUnknownMethod = errors.New("unknown method")
)

// maxErrorBody bounds an encoded error.
const maxErrorBody = 64 << 10

// encodeError writes what a user may see of e; its cause stays here.
func encodeError(e *muster.Error) []byte {
	b := wire.AppendString(nil, 1, string(e.Code))
	b = wire.AppendString(b, 2, e.Detail)
	b = wire.AppendString(b, 3, e.Hint)
	b = wire.AppendString(b, 4, e.Leader)
	b = wire.AppendUint(b, 5, uint64(max(e.RetryAfter, 0)))
	for _, f := range e.Fields {
		field := wire.AppendString(nil, 1, f.Pointer)
		field = wire.AppendString(field, 2, f.Detail)
		b = wire.AppendBytes(b, 6, field)
	}
	return b
}

func decodeError(b []byte) (*muster.Error, error) {
	e := &muster.Error{}
	err := wire.Each(b, func(num wire.Number, number uint64, text []byte) error {
		switch num {
		case 1:
			e.Code = muster.Code(text)
		case 2:
			e.Detail = string(text)
		case 3:
			e.Hint = string(text)
		case 4:
			e.Leader = string(text)
		case 5:
			e.RetryAfter = time.Duration(number & (1<<63 - 1))
		case 6:
			f, err := decodeFieldError(text)
			if err != nil {
				return err
			}
			e.Fields = append(e.Fields, f)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("decoding an error: %w", err)
	}
	if e.Code == "" {
		e.Code = muster.CodeInternal
	}
	return e, nil
}

func decodeFieldError(b []byte) (muster.FieldError, error) {
	var f muster.FieldError
	err := wire.Each(b, func(num wire.Number, _ uint64, text []byte) error {
		switch num {
		case 1:
			f.Pointer = string(text)
		case 2:
			f.Detail = string(text)
		}
		return nil
	})
	return f, err
}
