package fsm

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/wire"
)

// kind is the first byte of an operation. A kind that a node does not know stops
// it, unless its high bit says that it may be ignored.
type kind byte

// The kinds of operation. Numbers are never given twice; 127 is of tests (level.go).
const (
	kindRegister       kind = 1
	kindDeregister     kind = 2
	kindExpire         kind = 3
	kindSuspect        kind = 4
	kindRelease        kind = 5
	kindReap           kind = 6
	kindSetOverride    kind = 7
	kindClearOverride  kind = 8
	kindGrantLease     kind = 9
	kindRevokeLease    kind = 10
	kindEpoch          kind = 11
	kindMember         kind = 12
	kindRestoreBegin   kind = 13
	kindRestoreChunk   kind = 14
	kindRestoreCommit  kind = 15
	kindRestoreAbort   kind = 16
	kindRefused        kind = 17
	kindConfigure      kind = 18
	kindSwitchGovernor kind = 19
	kindJudge          kind = 20
	kindRaise          kind = 22

	kindIgnorable kind = 0x80
)

// The fields that several kinds have in common. 1 to 3 name an instance.
const (
	fieldAbsent wire.Number = 5
	fieldModify wire.Number = 6
	fieldPlace  wire.Number = 7
	fieldActor  wire.Number = 14
	fieldReason wire.Number = 15
)

// Encode returns the bytes of an operation, as Pack takes them.
func Encode(op Op) []byte { return op.append([]byte{byte(op.kind())}) }

func (Register) kind() kind      { return kindRegister }
func (Deregister) kind() kind    { return kindDeregister }
func (Expire) kind() kind        { return kindExpire }
func (Suspect) kind() kind       { return kindSuspect }
func (Release) kind() kind       { return kindRelease }
func (Reap) kind() kind          { return kindReap }
func (SetOverride) kind() kind   { return kindSetOverride }
func (ClearOverride) kind() kind { return kindClearOverride }
func (GrantLease) kind() kind    { return kindGrantLease }
func (RevokeLease) kind() kind   { return kindRevokeLease }
func (Epoch) kind() kind         { return kindEpoch }
func (Member) kind() kind        { return kindMember }
func (RestoreBegin) kind() kind  { return kindRestoreBegin }
func (RestoreChunk) kind() kind  { return kindRestoreChunk }
func (RestoreCommit) kind() kind { return kindRestoreCommit }
func (RestoreAbort) kind() kind  { return kindRestoreAbort }

func (Configure) kind() kind      { return kindConfigure }
func (Raise) kind() kind          { return kindRaise }
func (SwitchGovernor) kind() kind { return kindSwitchGovernor }
func (Judge) kind() kind          { return kindJudge }

func (o Register) append(b []byte) []byte {
	b = appendKey(b, keyOf(o.Instance))
	b = appendMessage(b, 4, func(b []byte) []byte { return appendSpec(b, o.Instance) })
	return appendCaller(appendCondition(b, o.Cond), o.Caller)
}

func (o Deregister) append(b []byte) []byte {
	b = wire.AppendUint(appendKey(b, o.Key), 4, o.Incarnation)
	return appendCaller(appendCondition(b, o.Cond), o.Caller)
}

func (o Expire) append(b []byte) []byte {
	b = appendLeases(wire.AppendUint(b, 1, o.Term), o.Leases)
	return appendCaller(wire.AppendBool(b, 3, o.Released), o.Caller)
}

func (o Suspect) append(b []byte) []byte {
	b = appendLeases(wire.AppendUint(b, 1, o.Term), o.Leases)
	return appendCaller(wire.AppendString(b, 3, o.Reason), o.Caller)
}

func (o Release) append(b []byte) []byte {
	b = wire.AppendUint(b, 1, o.Term)
	b = appendMessage(b, 2, func(b []byte) []byte {
		for _, id := range o.Leases {
			b = protowire.AppendVarint(b, uint64(id))
		}
		return b
	})
	return appendCaller(b, o.Caller)
}

func (o Reap) append(b []byte) []byte {
	b = wire.AppendUint(b, 1, o.Term)
	for _, t := range o.Targets {
		b = appendMessage(b, 2, func(b []byte) []byte { return wire.AppendUint(appendKey(b, t.Key), 4, t.ModifyIndex) })
	}
	return appendCaller(b, o.Caller)
}

func (o SetOverride) append(b []byte) []byte {
	b = appendMessage(appendKey(b, o.Key), 4, func(b []byte) []byte { return appendOverride(b, &o.Override) })
	return appendCaller(b, o.Caller)
}

func (o ClearOverride) append(b []byte) []byte {
	b = appendTime(wire.AppendUint(appendKey(b, o.Key), 4, o.Term), 5, o.Until)
	return appendCaller(b, o.Caller)
}

func (o GrantLease) append(b []byte) []byte {
	return appendCaller(wire.AppendString(appendTTL(b, 1, o.TTL), 2, o.Name), o.Caller)
}

func (o RevokeLease) append(b []byte) []byte {
	return appendCaller(wire.AppendUint(b, 1, uint64(o.ID)), o.Caller)
}

func (o Raise) append(b []byte) []byte {
	return wire.AppendUint(wire.AppendUint(b, 1, o.Term), 2, o.Level)
}

func (o Configure) append(b []byte) []byte {
	b = wire.AppendString(wire.AppendString(b, 1, o.Key.Namespace), 2, o.Key.Service)
	if o.Settings != nil {
		b = appendMessage(b, 3, func(b []byte) []byte { return appendSettings(b, o.Settings) })
	}
	return appendCaller(b, o.Caller)
}

func (o SwitchGovernor) append(b []byte) []byte {
	return appendCaller(wire.AppendBool(b, 1, o.On), o.Caller)
}

func (o Epoch) append(b []byte) []byte { return wire.AppendString(b, 1, o.ClusterID) }

func (o Member) append(b []byte) []byte {
	return wire.AppendBool(wire.AppendUint(wire.AppendString(b, 1, o.ID), 2, o.Boot), 3, o.Removed)
}

func (o RestoreBegin) append(b []byte) []byte {
	return appendCaller(wire.AppendUint(wire.AppendString(b, 1, o.ID), 2, o.Total), o.Caller)
}

func (o RestoreChunk) append(b []byte) []byte {
	return wire.AppendBytes(wire.AppendUint(wire.AppendString(b, 1, o.ID), 2, o.Offset), 3, o.Data)
}

func (o RestoreCommit) append(b []byte) []byte {
	return appendCaller(wire.AppendBytes(wire.AppendString(b, 1, o.ID), 2, o.SHA256[:]), o.Caller)
}

func (o RestoreAbort) append(b []byte) []byte { return wire.AppendString(b, 1, o.ID) }

func appendCaller(b []byte, c muster.Caller) []byte {
	return wire.AppendString(wire.AppendString(b, fieldActor, c.Actor), fieldReason, c.Reason)
}

func appendCondition(b []byte, c muster.Condition) []byte {
	b = wire.AppendBool(b, fieldAbsent, c.Absent)
	if c.ModifyIndex == 0 {
		return b
	}
	return wire.AppendUint(wire.AppendUint(b, fieldModify, c.ModifyIndex), fieldPlace, uint64(max(c.Place, -1)+1))
}

// appendLeases writes (id, generation) pairs. A generation is at or after the
// index within its id, mostly at it: the distance takes one byte.
func appendLeases(b []byte, leases []LeaseGen) []byte {
	return appendMessage(b, 2, func(b []byte) []byte {
		for _, l := range leases {
			b = protowire.AppendVarint(b, uint64(l.ID))
			b = protowire.AppendVarint(b, protowire.EncodeZigZag(int64(l.Generation-l.ID.Index())))
		}
		return b
	})
}
