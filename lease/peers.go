package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/muster-registry/muster/fault"
)

// handleRenew is the receiver of a renewal.
//
// The order is load-bearing: FIRST merge, THEN read the term. Our ack may make
// the majority that lets the leader answer its client, so the renewal must be in
// the copy of whoever leads next. A new leader of term T' has had a majority
// raise its term before it gathers, and a voter copies only after it has seen T'
// (handleGather). If we read our term after the merge and it is still ≤ T, then
// any such copy at this node comes after the merge and holds the renewal. If we
// read the term first, an election and the copy could both fall between the read
// and the merge: we would acknowledge a renewal that no later leader knows, and
// it would expire a client that was told it lives. The same holds for the leader
// itself, see (*session).round.
func (k *Keeper) handleRenew(_ context.Context, _ string, body []byte) ([]byte, error) {
	var m renewMsg
	if err := m.parse(body); err != nil {
		return nil, err
	}
	now := k.now()
	if fault.Is(fault.CheckThenMerge) {
		defer k.table.Merge(m.ids, now)
		m.ids = nil
	}
	k.table.Merge(m.ids, now)
	ack := renewAck{term: k.raft.CurrentTerm(), stamp: k.stamp(now)}
	ack.ok = ack.term <= m.term
	switch {
	case ack.ok && m.outageKnown:
		k.table.Ack(m.term, m.outage, k.stamped(m.echo, now), now)
	case ack.ok:
		k.table.Follow(m.term, now)
	}
	return ack.append(nil), nil
}

// stamp says when we acknowledge a Renew, in a manner that only we can read: it is
// a time of our clock, from a beginning that no other process of this node had. The
// leader echoes it, which proves that it was at work after that time.
func (k *Keeper) stamp(now time.Duration) uint64 { return k.stamps + uint64(now) }

// stamped is when we gave a stamp before now, or never.
func (k *Keeper) stamped(stamp uint64, now time.Duration) time.Duration {
	if since := stamp - k.stamps; stamp != 0 && since <= uint64(now) {
		return time.Duration(since)
	}
	return never
}

// handleGather gives a part of the shadow to a new leader.
//
// The order is load-bearing: FIRST check that our term has reached the new
// leader's, THEN copy. From then on no renewal of an older term is acknowledged
// here (handleRenew), so every renewal this node has acknowledged before is in
// the copy, and there will be no other. Copied first, a renewal could be merged
// and acknowledged under the old term between the copy and the check.
func (k *Keeper) handleGather(_ context.Context, _ string, body []byte) ([]byte, error) {
	var m gatherMsg
	if err := m.parse(body); err != nil {
		return nil, err
	}
	var ack gatherAck
	if ack.ok = k.raft.CurrentTerm() >= m.term; ack.ok {
		ack.shadow = k.table.Copy(m.part, m.parts, k.now())
		if len(ack.shadow.IDs) > maxIDs {
			return nil, fmt.Errorf("lease: %d leases in part %d of %d", len(ack.shadow.IDs), m.part, m.parts)
		}
	}
	return ack.append(nil), nil
}

// handleBeat takes heartbeats that another node passes on.
func (k *Keeper) handleBeat(ctx context.Context, _ string, body []byte) ([]byte, error) {
	var m beatMsg
	if err := m.parse(body); err != nil {
		return nil, err
	}
	s := k.leading()
	if s == nil {
		return nil, errNoLeader()
	}
	ctx, cancel := context.WithTimeout(ctx, k.cfg.CallTimeout)
	defer cancel()
	s.noteShed(m.shed)
	results, err := s.beat(ctx, m.names, m.wait)
	if err != nil {
		return nil, err
	}
	ack := beatAck{stretch: s.stretch(), verdicts: results}
	return ack.append(nil), nil
}

// handleLook says how much remains of a lease.
func (k *Keeper) handleLook(ctx context.Context, _ string, body []byte) ([]byte, error) {
	var m lookMsg
	if err := m.parse(body); err != nil {
		return nil, err
	}
	s := k.leading()
	if s == nil {
		return nil, errNoLeader()
	}
	ctx, cancel := context.WithTimeout(ctx, k.cfg.CallTimeout)
	defer cancel()
	ack, err := s.look(ctx, m.id)
	if err != nil {
		return nil, err
	}
	return ack.append(nil), nil
}

// slack is what an age of another node's is taken to be wrong by: clocks run up
// to 1 % apart.
func slack(age time.Duration) time.Duration { return age/100 + 50*time.Millisecond }
