package chaos

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Outcome is what became of an attempt.
type Outcome string

// The outcomes. An attempt is one request: nothing is tried again within it.
const (
	// OK: a 2xx answer, which was read to its end.
	OK Outcome = "ok"
	// Fail: surely nothing changed. No connection came about, or the answer is a
	// refusal by code.
	Fail Outcome = "fail"
	// Unknown: it may have happened, or may happen yet. The connection broke, the time
	// was over, or the answer is 504 outcome_unknown.
	Unknown Outcome = "unknown"
)

// Kind is what a record is of.
type Kind string

// The kinds of record.
const (
	KindRegister   Kind = "register"
	KindDeregister Kind = "deregister"
	KindBeat       Kind = "beat"
	KindRead       Kind = "read"   // of a service, or of one instance
	KindPoll       Kind = "poll"   // a long poll of a service
	KindEvents     Kind = "events" // a page of the journal
	KindOpen       Kind = "open"   // a stream was opened
	KindMessage    Kind = "msg"    // a message of a stream
	KindFinal      Kind = "final"  // the list of services and their views, in the end
	// KindReached says up to where a watcher had to come in the end.
	KindReached Kind = "reached"
)

// Record is one attempt, or one message of a stream. Times are nanoseconds since
// the history began, on the monotonic clock.
type Record struct {
	ID      int64   `json:"n"`
	Kind    Kind    `json:"kind"`
	Client  string  `json:"client"`
	Node    int     `json:"node"` // which of the URLs
	Wall    int64   `json:"wall"` // at the call, Unix nanoseconds
	Call    int64   `json:"call"`
	Return  int64   `json:"return"`
	Outcome Outcome `json:"outcome"`
	Status  int     `json:"status,omitempty"`
	Code    string  `json:"code,omitempty"`
	Error   string  `json:"error,omitempty"`

	Service  string `json:"service,omitempty"`
	Instance string `json:"instance,omitempty"`
	// Index is the Muster-Index of the answer, or the id of a message.
	Index uint64 `json:"index,omitempty"`
	Stale int64  `json:"stale_ms,omitempty"`

	// Op names a write (its ?reason=), Value is what it writes, Same says that this
	// had been written before; Match and Absent are its conditions.
	Op      string `json:"op,omitempty"`
	Value   string `json:"value,omitempty"`
	Same    bool   `json:"same,omitempty"`
	Match   uint64 `json:"if_match,omitempty"`
	Absent  bool   `json:"if_none_match,omitempty"`
	TTL     int64  `json:"ttl_ms,omitempty"` // 0: none
	Created bool   `json:"created,omitempty"`
	Changed bool   `json:"changed,omitempty"`

	// What a read asked for.
	Linearizable bool   `json:"linearizable,omitempty"`
	MinIndex     uint64 `json:"min_index,omitempty"`
	MaxStale     int64  `json:"max_stale_ms,omitempty"`
	After        uint64 `json:"after,omitempty"` // of a poll, a page of the journal, a stream

	// Cells is what a view held, or the instance that was answered.
	Cells []Cell `json:"cells,omitempty"`
	// Beat are the instances that a heartbeat named, Gone those that were unknown;
	// both as service/id.
	Beat []string `json:"beat,omitempty"`
	Gone []string `json:"gone,omitempty"`
	// Events are those of a page of the journal or of a change.
	Events    []Event `json:"events,omitempty"`
	Truncated bool    `json:"truncated,omitempty"`
	// Message is the type of a message; Select is what a stream carries.
	Message string  `json:"message,omitempty"`
	Select  *Select `json:"select,omitempty"`
}

// Cell is one instance of an answer.
type Cell struct {
	ID     string `json:"id"`
	Value  string `json:"v,omitempty"` // its meta.op
	Modify uint64 `json:"mod"`
	Hash   uint64 `json:"hash"` // of its JSON
	TTL    int64  `json:"-"`    // ms; 0: none
}

// Event is one event of the log. The journal has no instances: there Hash
// and Value are not known.
type Event struct {
	Index   uint64 `json:"i"`
	Type    string `json:"t"`
	Service string `json:"s,omitempty"`
	ID      string `json:"id,omitempty"`
	Cause   string `json:"c"`
	Time    int64  `json:"at"` // Unix ms
	Reason  string `json:"r,omitempty"`
	Status  string `json:"st,omitempty"`
	Hash    uint64 `json:"h,omitempty"`
	Value   string `json:"v,omitempty"` // the meta.op of the instance after it
}

// bare is the event as the journal has it.
func (e Event) bare() Event {
	e.Hash, e.Value = 0, ""
	return e
}

// Select is what a stream carries: services by name, or by prefix.
type Select struct {
	Services []string `json:"services,omitempty"`
	Prefix   string   `json:"prefix,omitempty"`
}

// History writes records to a file, as JSON lines, and reads them back. Add is safe
// for concurrent use; in memory it keeps only how many there are.
type History struct {
	path  string
	start time.Time

	mu    sync.Mutex // guards all below
	file  *os.File
	out   *bufio.Writer
	next  int64
	ok    int64
	fault error
}

// header is the first line of a history.
type header struct {
	Start time.Time `json:"start"`
}

// historyFile is the name of a history in its directory.
const historyFile = "history.jsonl"

// NewHistory begins a history in dir, which has to be there. A history that is
// there is overwritten.
func NewHistory(dir string) (*History, error) {
	path := filepath.Join(dir, historyFile)
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("beginning a history: %w", err)
	}
	h := &History{path: path, start: time.Now(), file: file, out: bufio.NewWriterSize(file, 1<<18)}
	if err := json.NewEncoder(h.out).Encode(header{h.start}); err != nil {
		return nil, errors.Join(fmt.Errorf("beginning a history: %w", err), file.Close())
	}
	return h, nil
}

// OpenHistory opens the history that an earlier run left in dir, to be checked again.
func OpenHistory(dir string) (*History, error) {
	h := &History{path: filepath.Join(dir, historyFile)}
	file, err := os.Open(h.path)
	if err != nil {
		return nil, fmt.Errorf("opening a history: %w", err)
	}
	defer file.Close()
	var head header
	if err := json.NewDecoder(file).Decode(&head); err != nil {
		return nil, fmt.Errorf("opening %s: %w", h.path, err)
	}
	h.start = head.Start
	return h, nil
}

// Path is the file.
func (h *History) Path() string { return h.path }

// Since is a time as records have it.
func (h *History) Since(t time.Time) int64 { return int64(t.Sub(h.start)) }

// Count is the number of records, and of those that went well.
func (h *History) Count() (all, ok int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.next, h.ok
}

// Add writes a record and gives it its number. An error of the file is told by Close
// and by Check.
func (h *History) Add(r *Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	r.ID = h.next
	if r.Outcome == OK {
		h.ok++
	}
	if h.file == nil {
		h.fault = errors.Join(h.fault, errors.New("a record came after the history was closed"))
		return
	}
	b, err := json.Marshal(r)
	if err == nil {
		_, err = h.out.Write(append(b, '\n'))
	}
	if err != nil && h.fault == nil {
		h.fault = fmt.Errorf("writing the history: %w", err)
	}
}

// Close ends the history; what is in the file can still be checked.
func (h *History) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file == nil {
		return h.fault
	}
	h.fault = errors.Join(h.fault, h.out.Flush(), h.file.Close())
	h.file, h.out = nil, nil
	return h.fault
}

// faultsFile is the name of the faults beside a history.
const faultsFile = "faults.json"

func (h *History) saveFaults(faults []FaultSpan) error {
	b, err := json.MarshalIndent(faults, "", " ")
	if err == nil {
		err = os.WriteFile(filepath.Join(filepath.Dir(h.path), faultsFile), b, 0o644)
	}
	if err != nil {
		return fmt.Errorf("writing the faults of a history: %w", err)
	}
	return nil
}

func (h *History) loadFaults() (faults []FaultSpan, err error) {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(h.path), faultsFile))
	if err == nil {
		err = json.Unmarshal(b, &faults)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the faults of a history: %w", err)
	}
	return faults, nil
}

// each calls fn for every record, in the order of their numbers.
func (h *History) each(fn func(*Record) error) error {
	h.mu.Lock()
	err := h.fault
	if h.out != nil {
		err = errors.Join(err, h.out.Flush())
	}
	h.mu.Unlock()
	if err != nil {
		return err
	}
	file, err := os.Open(h.path)
	if err != nil {
		return fmt.Errorf("reading a history: %w", err)
	}
	defer file.Close()
	d := json.NewDecoder(bufio.NewReaderSize(file, 1<<18))
	if err := d.Decode(&header{}); err != nil {
		return fmt.Errorf("reading %s: %w", h.path, err)
	}
	for {
		var r Record
		if err := d.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading %s after record %d: %w", h.path, r.ID, err)
		}
		if err := fn(&r); err != nil {
			return err
		}
	}
}

// hashOf is never 0.
func hashOf(b []byte) uint64 {
	f := fnv.New64a()
	f.Write(b) // never fails
	return max(f.Sum64(), 1)
}
