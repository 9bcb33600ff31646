//go:build nextlevel

package fsm

import "slices"

// This build stands for the one after: it knows one level more, to which one operation
// belongs, a registration under another number. Once the cluster's level allows it a
// leader writes registrations so, and a build without the tag cannot read its log.

const (
	newestLevel      = baseLevel + 1
	kindNewest  kind = 0x7f
)

func readNewest(k kind, d *decoder) applier {
	if k != kindNewest {
		return nil
	}
	return readRegister(d)
}

func renew(op []byte, cluster uint64) []byte {
	if cluster < newestLevel || len(op) == 0 || kind(op[0]) != kindRegister {
		return op
	}
	op = slices.Clone(op)
	op[0] = byte(kindNewest)
	return op
}
