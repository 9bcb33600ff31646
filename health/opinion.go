package health

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/muster-registry/muster"
)

// opinion is what one node holds of one check. Only up and down are opinions.
type opinion struct {
	key     muster.InstanceKey
	life    uint64
	place   int
	status  muster.Status
	cause   muster.CheckCause
	output  string
	latency time.Duration
}

// report carries opinions to the leader. It also says that its sender is alive
// and probes.
type report struct {
	// boot is made anew at each start of the process.
	boot     uint64
	opinions []opinion
}

// receipt is the leader's answer to a report.
type receipt struct {
	// term and version name the leader's session and the set of probers: where
	// either has changed, all opinions are sent again.
	term, version uint64
	probers       []string
	// missed says that an opinion was of an instance that the leader does not know
	// (yet): the report is to be sent again.
	missed bool
}

const (
	// maxReport is the most opinions of one report.
	maxReport  = 500
	maxProbers = 1000
)

var errMessage = errors.New("health: message is malformed")

func (r *report) encode() []byte {
	b := appendUint(nil, 1, r.boot)
	for n := range r.opinions {
		o := &r.opinions[n]
		var m []byte
		m = appendText(appendText(appendText(m, 1, o.key.Namespace), 2, o.key.Service), 3, o.key.ID)
		m = appendUint(appendUint(m, 4, o.life), 5, uint64(o.place))
		if o.status == muster.StatusUp {
			m = appendUint(m, 6, 1)
		}
		m = appendText(appendText(m, 7, string(o.cause)), 8, o.output)
		m = appendUint(m, 9, uint64(max(o.latency, 0)))
		b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), m)
	}
	return b
}

func decodeReport(b []byte) (report, error) {
	var r report
	err := eachField(b, func(num protowire.Number, v uint64, text []byte) error {
		switch num {
		case 1:
			r.boot = v
		case 2:
			o, err := decodeOpinion(text)
			if err != nil || len(r.opinions) == maxReport {
				return errMessage
			}
			r.opinions = append(r.opinions, o)
		}
		return nil
	})
	return r, err
}

func decodeOpinion(b []byte) (opinion, error) {
	o := opinion{status: muster.StatusDown}
	err := eachField(b, func(num protowire.Number, v uint64, text []byte) error {
		switch num {
		case 1:
			o.key.Namespace = string(text)
		case 2:
			o.key.Service = string(text)
		case 3:
			o.key.ID = string(text)
		case 4:
			o.life = v
		case 5:
			o.place = int(min(v, muster.MaxChecks))
		case 6:
			if v == 1 {
				o.status = muster.StatusUp
			}
		case 7:
			o.cause = muster.CheckCause(clean(string(text)))
		case 8:
			o.output = clean(string(text))
		case 9:
			o.latency = time.Duration(min(v, uint64(muster.MaxCheckInterval)))
		}
		return nil
	})
	return o, err
}

func (r *receipt) encode() []byte {
	b := appendUint(appendUint(nil, 1, r.term), 2, r.version)
	for _, id := range r.probers {
		b = appendText(b, 3, id)
	}
	if r.missed {
		b = appendUint(b, 4, 1)
	}
	return b
}

func decodeReceipt(b []byte) (receipt, error) {
	var r receipt
	err := eachField(b, func(num protowire.Number, v uint64, text []byte) error {
		switch num {
		case 1:
			r.term = v
		case 2:
			r.version = v
		case 3:
			if len(r.probers) == maxProbers {
				return errMessage
			}
			r.probers = append(r.probers, string(text))
		case 4:
			r.missed = v == 1
		}
		return nil
	})
	return r, err
}

// eachField walks the fields of a message; those of other types are skipped.
func eachField(b []byte, f func(num protowire.Number, v uint64, text []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", errMessage, protowire.ParseError(n))
		}
		b = b[n:]
		var v uint64
		var text []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			text, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return fmt.Errorf("%w: %w", errMessage, protowire.ParseError(n))
		}
		b = b[n:]
		if typ != protowire.VarintType && typ != protowire.BytesType {
			continue
		}
		if err := f(num, v, text); err != nil {
			return err
		}
	}
	return nil
}

func appendUint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

func appendText(b []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}
