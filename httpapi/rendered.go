package httpapi

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"sync"
)

// maxRendered is how many lists are remembered as they were sent. Those who flood a
// node ask for few different ones.
const maxRendered = 8

// rendered remembers the latest lists as bytes, so that a crowd who asks for the same
// costs one rendering; and lets no more than half of the processors render at once,
// because what is rendered meanwhile must not keep a heartbeat waiting.
type rendered struct {
	turns chan struct{} // holds a token for each that renders

	mu    sync.Mutex
	lists []*renderedList // guarded by mu: the latest asked for last
}

type renderedList struct {
	key  string
	once sync.Once
	body []byte
	err  error
}

func newRendered() *rendered {
	return &rendered{turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
}

// of returns v as JSON. key stands for all that v depends on: an index among it, so
// that what is remembered is never old. The caller must not change the bytes.
func (r *rendered) of(key string, v any) ([]byte, error) {
	l := r.find(key)
	l.once.Do(func() {
		r.turns <- struct{}{}
		defer func() { <-r.turns }()
		if l.body, l.err = json.Marshal(v); l.err != nil {
			l.err = fmt.Errorf("encoding a list: %w", l.err)
		}
	})
	return l.body, l.err
}

func (r *rendered) find(key string) *renderedList {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := slices.IndexFunc(r.lists, func(l *renderedList) bool { return l.key == key })
	l := &renderedList{key: key}
	if at >= 0 {
		l = r.lists[at]
		r.lists = slices.Delete(r.lists, at, at+1)
	} else if len(r.lists) == maxRendered {
		r.lists = slices.Delete(r.lists, 0, 1)
	}
	r.lists = append(r.lists, l)
	return l
}
