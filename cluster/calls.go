package cluster

import (
	"context"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/cluster/peer"
)

// The methods of the internal calls. Those of other rooms are kept apart by prefix.
const (
	methodPropose   = "cluster/propose"
	methodConfirm   = "cluster/confirm"
	methodReadIndex = "cluster/readindex"
	methodFresh     = "cluster/fresh"
	methodStatus    = "cluster/status"
	methodTransfer  = "cluster/transfer"
	methodRemove    = "cluster/remove"
	methodLife      = "cluster/life"
	roomPrefix      = "room/"
)

func (n *Node) handleCalls() {
	n.port.Handle(methodPropose, n.handlePropose)
	n.port.Handle(methodConfirm, n.handleConfirm)
	n.port.Handle(methodReadIndex, n.handleReadIndex)
	n.port.Handle(methodFresh, n.handleFresh)
	n.port.Handle(methodStatus, n.handleStatus)
	n.port.Handle(methodTransfer, n.handleTransfer)
	n.port.Handle(methodRemove, n.handleRemove)
	n.port.Handle(methodLife, n.handleLife)
}

// Handle serves a method of another room to the members of the cluster. fn is
// called concurrently; its context ends when the caller gives up. A *muster.Error
// it returns reaches the caller as it is. Handle may only be called before Run.
func (n *Node) Handle(method string, fn func(ctx context.Context, from string, body []byte) ([]byte, error)) {
	n.port.Handle(roomPrefix+method, func(ctx context.Context, from peer.Hello, body []byte) ([]byte, error) {
		return fn(ctx, from.NodeID, body)
	})
}

// Call calls a method of another room on a member, this node included. It is sent
// once; where it is not known whether it arrived, the error is outcome_unknown,
// and where it certainly did not, no_leader.
func (n *Node) Call(ctx context.Context, memberID, method string, body []byte) ([]byte, error) {
	addr := n.addrOf(memberID)
	if addr == "" {
		return nil, muster.Errorf(muster.CodeUnknownMember, "%q is not a member of this cluster", clip(memberID, 64))
	}
	answer, err := n.rpc(ctx, peer.At(memberID, addr), roomPrefix+method, body)
	return answer, n.callError(memberID, err)
}

// addrOf is the peer address of a member: that of the configuration, which raft
// itself uses, or else what gossip says.
func (n *Node) addrOf(id string) string {
	if id == n.id {
		return n.port.Advertised()
	}
	for _, s := range n.servers() {
		if string(s.ID) == id {
			return string(s.Address)
		}
	}
	n.gossip.mu.Lock()
	defer n.gossip.mu.Unlock()
	if m := n.gossip.nodes[id]; m != nil {
		return m.PeerAddr
	}
	return ""
}
