package cluster

import (
	"context"
	"errors"
	"net"
	"strconv"
	"time"

	"github.com/muster-registry/muster/cluster/peer"
)

const (
	rejoinEvery   = 15 * time.Second
	seedRetry     = time.Second
	seedWarnFirst = 3 * time.Second
	seedWarnEvery = 30 * time.Second
)

// checkSeeds refuses addresses that cannot be meant.
func checkSeeds(seeds []string) error {
	for _, s := range seeds {
		if !validAddr(s) {
			return exitErrorf(exitConfig, "--join: %q is not an address: give host:port of a node's gossip port, such as 127.0.0.1:7402", clip(s, 64))
		}
	}
	return nil
}

// validAddr reports whether s is host:port with a port that can be dialled.
func validAddr(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || len(host) > 253 {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// seed is one of the addresses to find others by.
type seed struct {
	addr    string
	reached bool // once since the node started
	warned  time.Time
}

// keepJoined joins the seeds, and every 15 s those seeds and members that gossip
// has lost: memberlist itself forgets the dead after half a minute, and two halves
// of a cluster that have forgotten each other never meet again.
func (n *Node) keepJoined(ctx context.Context) {
	warned := time.Now().Add(seedWarnFirst - seedWarnEvery)
	seeds := make([]*seed, len(n.cfg.Join))
	for i, addr := range n.cfg.Join {
		seeds[i] = &seed{addr: addr, warned: warned}
	}
	lastFull := time.Time{}
	for {
		full := time.Since(lastFull) >= rejoinEvery
		if full {
			lastFull = time.Now()
			n.rejoinMembers(ctx)
		}
		for _, s := range seeds {
			if !s.reached || full {
				n.joinSeed(ctx, s)
			}
		}
		if !sleep(ctx, seedRetry) {
			return
		}
	}
}

func (n *Node) joinSeed(ctx context.Context, s *seed) {
	lctx, cancel := context.WithTimeout(ctx, gossipStreamIO)
	defer cancel()
	host, port, _ := net.SplitHostPort(s.addr)
	ips, err := net.DefaultResolver.LookupIPAddr(lctx, host)
	if err == nil {
		err = errors.New("the name has no address")
	}
	known := n.aliveAddrs()
	for _, ip := range ips {
		addr := net.JoinHostPort(ip.String(), port)
		if known[addr] {
			err = nil
			break
		}
		if _, err = n.gossip.list.Join([]string{addr}); err == nil {
			break
		}
	}
	if err == nil {
		s.reached, s.warned = true, time.Now()
		return
	}
	if ctx.Err() == nil && time.Since(s.warned) >= seedWarnEvery {
		s.warned = time.Now()
		args := []any{"addr", s.addr, "reached_before", s.reached, "err", err}
		if keyTrouble(err) {
			args = append(args, "hint", "cluster keys may differ: give all nodes the same --cluster-key-file")
		}
		n.logger.Warn("cannot reach a node to join, trying on", args...)
	}
}

// aliveAddrs are the gossip addresses of the nodes found alive, this one included.
func (n *Node) aliveAddrs() map[string]bool {
	known := map[string]bool{n.gossip.net.self(): true, n.gossip.net.tcp.Addr().String(): true}
	for _, m := range n.gossip.members() {
		if m.Alive {
			known[m.Addr] = true
		}
	}
	return known
}

// rejoinMembers joins the members of the raft configuration that gossip does not
// find alive. Where gossip never saw one, its peer port knows its gossip address.
func (n *Node) rejoinMembers(ctx context.Context) {
	members := n.gossip.members()
	inConfig := make(map[string]bool)
	for _, s := range n.servers() {
		id := string(s.ID)
		inConfig[id] = true
		m, seen := members[id]
		if id == n.id || m.Alive {
			continue
		}
		addr := m.Addr
		if !seen {
			st, err := n.askStatus(ctx, peer.At(id, string(s.Address)))
			if err != nil {
				continue
			}
			addr = st.gossip
		}
		if _, err := n.gossip.list.Join([]string{addr}); err != nil {
			n.logger.Debug("member not reached by gossip", "node", id, "err", err)
		}
	}
	n.gossip.forget(deadAfter, func(id string) bool { return inConfig[id] })
}
