package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/muster-registry/muster/node"
)

const (
	notifyEvery = 500 * time.Millisecond
	// A start that reads a long log asks for this much more time, every notifyExtend/2.
	notifyExtend = time.Minute
	// reachedLate is the age of reads from which on the status says it.
	reachedLate = 5 * time.Second
)

// serviceManager is told how the node does, by the protocol of sd_notify(3): lines of
// KEY=VALUE in a datagram to the socket that the environment names.
type serviceManager struct {
	socket net.Conn
	logger *slog.Logger
	last   string // the last status
	asked  time.Time
}

// findServiceManager returns the service manager that started this process and wants
// to be told; nil if there is none.
func findServiceManager(logger *slog.Logger) *serviceManager {
	addr := os.Getenv("NOTIFY_SOCKET") // "@…" is of the abstract namespace, here as in package net
	if addr == "" {
		return nil
	}
	c, err := net.Dial("unixgram", addr)
	if err != nil {
		logger.Warn("cannot tell the service manager how the node does", "addr", addr, "err", err)
		return nil
	}
	return &serviceManager{socket: c, logger: logger}
}

// follow tells how n does until ctx is done: first that it starts, then, once, that
// it has, and what it does ever since; at the end that it stops. The node is ready
// when it takes part in the cluster, not when the cluster has a leader: the first of
// three nodes would wait for the second, which waits for the start of the first.
func (s *serviceManager) follow(ctx context.Context, n *node.Node) {
	tick := time.NewTicker(notifyEvery)
	defer tick.Stop()
	for ready := false; ; {
		started := n.Cluster().Started()
		if started && !ready {
			ready = true
			s.say("READY=1")
		}
		if !started && time.Since(s.asked) > notifyExtend/2 {
			s.asked = time.Now()
			s.say(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", notifyExtend.Microseconds()))
		}
		s.status(nodeStatus(n, started))
		select {
		case <-ctx.Done():
			s.say("STOPPING=1\nSTATUS=stopping")
			return
		case <-tick.C:
		}
	}
}

// status tells a status that is another than the last.
func (s *serviceManager) status(text string) {
	if text != s.last {
		s.last = text
		s.say("STATUS=" + text)
	}
}

func (s *serviceManager) say(state string) {
	if _, err := s.socket.Write([]byte(state)); err != nil {
		s.logger.Debug("the service manager was not told", "text", state, "err", err)
	}
}

// nodeStatus says in a line what n is doing.
func nodeStatus(n *node.Node, started bool) string {
	c := n.Cluster()
	if !started {
		return c.Startup().String()
	}
	id, _ := c.Leader()
	_, _, leads := c.Session()
	switch stale, ready := c.Freshness(); {
	case leads:
		return fmt.Sprintf("leads %d voters", len(c.Voters()))
	case !ready:
		return c.Startup().String() + "; answers no reads yet"
	case id == "" || stale > reachedLate:
		return "cut off from the leader, answers reads that say how old they are"
	default:
		return "follows " + id
	}
}
