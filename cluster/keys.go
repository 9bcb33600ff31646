package cluster

import (
	"bytes"
	"strings"
	"sync"
	"time"
)

// keyTellEvery is how often at most a node says that others have another key.
const keyTellEvery = 30 * time.Second

// keyTeller says in words what memberlist only says in passing: that gossip arrives
// which this node's cluster key does not open.
type keyTeller struct {
	lineWriter
	mu   sync.Mutex
	told time.Time // guarded by mu
}

func (w *keyTeller) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("crypt")) && w.due() {
		w.logger.Warn("gossip arrives that this node cannot read: give all nodes the same --cluster-key-file", "text", string(bytes.TrimSpace(line)))
	}
	return w.lineWriter.Write(line)
}

func (w *keyTeller) due() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.told) < keyTellEvery {
		return false
	}
	w.told = time.Now()
	return true
}

// keyTrouble reports whether a join that failed with err may have failed for the
// cluster key: a node that cannot read what it is told just hangs up.
func keyTrouble(err error) bool {
	text := err.Error()
	return strings.Contains(text, "crypt") || strings.Contains(text, "EOF") || strings.Contains(text, "connection reset")
}
