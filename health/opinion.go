package health

import (
	"errors"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/wire"
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
	b := wire.AppendUint(nil, 1, r.boot)
	for n := range r.opinions {
		o := &r.opinions[n]
		var m []byte
		m = wire.AppendString(wire.AppendString(wire.AppendString(m, 1, o.key.Namespace), 2, o.key.Service), 3, o.key.ID)
		m = wire.AppendUint(wire.AppendUint(m, 4, o.life), 5, uint64(o.place))
		if o.status == muster.StatusUp {
			m = wire.AppendUint(m, 6, 1)
		}
		m = wire.AppendString(wire.AppendString(m, 7, string(o.cause)), 8, o.output)
		m = wire.AppendUint(m, 9, uint64(max(o.latency, 0)))
		b = wire.AppendBytes(b, 2, m)
	}
	return b
}

func decodeReport(b []byte) (report, error) {
	var r report
	err := wire.Each(b, func(num wire.Number, v uint64, text []byte) error {
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
	err := wire.Each(b, func(num wire.Number, v uint64, text []byte) error {
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
	b := wire.AppendUint(wire.AppendUint(nil, 1, r.term), 2, r.version)
	for _, id := range r.probers {
		b = wire.AppendString(b, 3, id)
	}
	if r.missed {
		b = wire.AppendUint(b, 4, 1)
	}
	return b
}

func decodeReceipt(b []byte) (receipt, error) {
	var r receipt
	err := wire.Each(b, func(num wire.Number, v uint64, text []byte) error {
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
