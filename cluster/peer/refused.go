package peer

import (
	"errors"
	"fmt"

	"github.com/muster-registry/muster/wire"
)

// The codes of a refused connection. Any other code may come from a peer of
// another version.
const (
	CodeWrongCluster = "wrong_cluster"
	CodeRemoved      = "removed"
	CodeOldCopy      = "old_copy"
	CodeDuplicateID  = "duplicate_id"
	CodeBadVersion   = "bad_version"
	// CodeTooOld: of a version that cannot read what the cluster writes.
	CodeTooOld = "too_old"
	// CodeWrongNode: not the node that was asked for, see At.
	CodeWrongNode = "wrong_node"
	// CodeNoKey: one side has a cluster key, the other has none.
	CodeNoKey = "no_key"
	// CodeWrongKey: the cluster keys differ.
	CodeWrongKey = "wrong_key"
	// CodeBusy: too many connections.
	CodeBusy = "busy"
	// CodeRefused: for another reason, which is told.
	CodeRefused  = "refused"
	codeBadHello = "bad_hello"
	codeNoMuster = "not_muster" // what came was no hello at all
	codeSilence  = "timeout"
	codeBroken   = "broken"
)

// RefusedError says that one side of a connection would not have the other.
type RefusedError struct {
	Code string
	// Reason is for people.
	Reason string
	// ByPeer tells that the other side refused us; else we refused it.
	ByPeer bool
}

// Error says who refused whom and why.
func (e *RefusedError) Error() string {
	who := "refused the peer"
	if e.ByPeer {
		who = "refused by the peer"
	}
	if e.Reason == "" {
		return fmt.Sprintf("%s: %s", who, e.Code)
	}
	return fmt.Sprintf("%s: %s: %s", who, e.Code, e.Reason)
}

// refusal makes a RefusedError of our own out of any error.
func refusal(err error) *RefusedError {
	if r, ok := errors.AsType[*RefusedError](err); ok {
		return &RefusedError{Code: printable(r.Code, maxHelloString), Reason: printable(r.Reason, maxHelloString)}
	}
	return &RefusedError{Code: CodeRefused, Reason: printable(err.Error(), maxHelloString)}
}

func (e *RefusedError) encode() []byte {
	b := wire.AppendString(nil, 1, e.Code)
	return wire.AppendString(b, 2, e.Reason)
}

func decodeRefusal(b []byte) (*RefusedError, error) {
	e := &RefusedError{ByPeer: true}
	err := wire.Each(b, func(num wire.Number, _ uint64, text []byte) error {
		switch num {
		case 1:
			e.Code = printable(string(text), maxHelloString)
		case 2:
			e.Reason = printable(string(text), maxHelloString)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if e.Code == "" {
		e.Code = CodeRefused
	}
	return e, nil
}
