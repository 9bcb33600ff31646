package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/muster-registry/muster"
)

// Violation is a promise that was broken.
type Violation struct {
	// Checker is which one found it: linear, order, acked, log, state, fresh, watch,
	// restore, lease, equal, answer or available.
	Checker string
	Text    string
	// Records are the numbers of those it follows from.
	Records []int64
}

func (v Violation) String() string {
	text := v.Checker + ": " + v.Text
	if len(v.Records) > 0 {
		text += fmt.Sprintf(" (records %s)", strings.Trim(fmt.Sprint(v.Records), "[]"))
	}
	return text
}

// Verdict is what the checkers say of a run.
type Verdict struct {
	Violations []Violation
	// Unsure is what could not be decided, and so fails the run as well.
	Unsure []string
	// Invalid is why the run says nothing.
	Invalid []string

	Attempts     map[Kind]map[Outcome]int
	Rate         float64 // attempts a second
	Lasted       time.Duration
	Linear       int // operations in the histories that porcupine was given
	Views        int // views that were held against the log
	Changes      int // messages of streams that were
	Syncs        int // of these the views at one index, and those again later on
	Resyncs      int
	Restored     int // services that were looked at just after a restore
	Leases       LeaseStats
	Availability Availability
}

// OK reports whether the run was one and nothing was found.
func (v *Verdict) OK() bool { return len(v.Violations)+len(v.Unsure)+len(v.Invalid) == 0 }

// maxShown bounds the violations of one checker that String shows.
const maxShown = 8

// String is the verdict for people.
func (v *Verdict) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%.0f attempts a second for %v:", v.Rate, v.Lasted.Round(time.Second))
	for _, k := range []Kind{KindRegister, KindDeregister, KindBeat, KindRead, KindPoll, KindEvents, KindOpen, KindMessage} {
		n := v.Attempts[k]
		fmt.Fprintf(&b, " %s %d ok", k, n[OK])
		if n[Fail] > 0 {
			fmt.Fprintf(&b, " %d failed", n[Fail])
		}
		if n[Unknown] > 0 {
			fmt.Fprintf(&b, " %d unknown", n[Unknown])
		}
		b.WriteByte(';')
	}
	fmt.Fprintf(&b, "\nlinearizable %d operations; state %d views; watches %d changes, %d times synced, %d of them again; restores %d services\n", v.Linear, v.Views, v.Changes, v.Syncs, v.Resyncs, v.Restored)
	fmt.Fprintf(&b, "leases %s\navailable %s", &v.Leases, &v.Availability)
	for _, text := range v.Invalid {
		fmt.Fprintf(&b, "\nINVALID %s", text)
	}
	for _, text := range v.Unsure {
		fmt.Fprintf(&b, "\nUNSURE %s", text)
	}
	shown := map[string]int{}
	for _, x := range v.Violations {
		if shown[x.Checker]++; shown[x.Checker] <= maxShown {
			fmt.Fprintf(&b, "\nVIOLATION %s", x)
		}
	}
	for _, c := range slices.Sorted(maps.Keys(shown)) {
		if more := shown[c] - maxShown; more > 0 {
			fmt.Fprintf(&b, "\nand %d more of %s", more, c)
		}
	}
	if v.OK() {
		b.WriteString("\nno violation")
	}
	return b.String()
}

// Bounds is how much a run has to reach. The zero value is the defaults.
type Bounds struct {
	// MinRate is the least number of attempts a second (MinRate), MinShare the least
	// share of the seconds that count in which something could be written (0.95).
	MinRate, MinShare float64
	// Window is how long porcupine may take over one history (30s).
	Window time.Duration
	// Short is a run of which nothing can be asked but that it is right: the checkers'
	// own tests.
	Short bool
}

func (b Bounds) withDefaults() Bounds {
	if b.MinRate == 0 {
		b.MinRate = MinRate
	}
	if b.MinShare == 0 {
		b.MinShare = 0.95
	}
	if b.Window == 0 {
		b.Window = 30 * time.Second
	}
	return b
}

// Check holds a history against what is promised. It reads the file twice, and keeps
// in memory what it compares. The faults are written beside the history, so that it can
// be checked again (Recheck).
func Check(h *History, faults []FaultSpan, bounds Bounds) (*Verdict, error) {
	c := &checks{
		Verdict: &Verdict{Attempts: map[Kind]map[Outcome]int{}}, h: h, faults: faults, bounds: bounds.withDefaults(), log: newLedger(),
	}
	if err := h.saveFaults(faults); err != nil {
		return nil, err
	}
	if err := h.each(func(r *Record) error { c.first(r); return nil }); err != nil {
		return nil, err
	}
	c.log.seal()
	for _, gap := range c.log.gaps() {
		c.unsure("no journal tells of the indexes from %d to %d", gap[0]+1, gap[1])
	}
	c.watches = map[string]*watchCheck{}
	if err := h.each(func(r *Record) error { c.second(r); return nil }); err != nil {
		return nil, err
	}
	c.checkAcked()
	c.checkOrder()
	c.checkFresh()
	c.checkState()
	c.checkRestores()
	c.checkFinal()
	c.checkLeases()
	c.checkLinear()
	c.checkAvailable()
	c.checkSize()
	return c.Verdict, nil
}

// Recheck checks what an earlier run left in dir.
func Recheck(dir string, bounds Bounds) (*Verdict, error) {
	h, err := OpenHistory(dir)
	if err != nil {
		return nil, err
	}
	faults, err := h.loadFaults()
	if err != nil {
		return nil, err
	}
	return Check(h, faults, bounds)
}

// checks is one check under way.
type checks struct {
	*Verdict
	h      *History
	faults []FaultSpan
	bounds Bounds
	log    *ledger

	writes   []*Record // register, deregister
	reads    []*Record // read, poll, final
	beats    []*Record
	overload []*Record // refusals that hold up expiry
	watches  map[string]*watchCheck
	shown    []shown
	last     int64    // of the times of the records
	drift    [2]int64 // of the wall clock against the monotonic one: least, most
	grain    int64    // how far two wall clocks may seem apart, ms
}

func (c *checks) violate(checker string, records []int64, format string, args ...any) {
	c.Violations = append(c.Violations, Violation{checker, fmt.Sprintf(format, args...), records})
}

func (c *checks) unsure(format string, args ...any) {
	c.Unsure = append(c.Unsure, fmt.Sprintf(format, args...))
}

// first takes the log from the records.
func (c *checks) first(r *Record) {
	if c.Attempts[r.Kind] == nil {
		c.Attempts[r.Kind] = map[Outcome]int{}
	}
	c.Attempts[r.Kind][r.Outcome]++
	c.last = max(c.last, r.Return)
	if d := r.Wall - r.Call; r.Wall > 0 {
		if c.drift[0] == 0 {
			c.drift = [2]int64{d, d}
		}
		c.drift = [2]int64{min(c.drift[0], d), max(c.drift[1], d)}
	}
	if r.Kind == KindEvents && r.Outcome == OK {
		if err := c.log.page(r); err != nil {
			c.violate("log", []int64{r.ID}, "%v", err)
		}
	}
	if r.Kind == KindMessage && !c.log.learn(r.Events) {
		c.violate("watch", []int64{r.ID}, "two streams show different instances after an entry: %+v", r.Events)
	}
}

// second takes all else, once the log is known.
func (c *checks) second(r *Record) {
	c.checkAnswer(r)
	switch r.Kind {
	case KindRegister, KindDeregister:
		c.settle(r)
		c.writes = append(c.writes, r)
	case KindBeat:
		c.beats = append(c.beats, r)
	case KindRead, KindPoll, KindFinal:
		if r.Outcome == OK {
			c.reads = append(c.reads, r)
			if r.Service != "" && r.Instance == "" && r.Status == 200 {
				c.shown = append(c.shown, shown{r.Service, r.Index, r.Cells, r.ID})
			}
		}
	case KindOpen, KindMessage, KindReached:
		c.checkWatch(r)
	}
	if r.Code == string(muster.CodeOverloaded) {
		c.overload = append(c.overload, r)
	}
}

// settle corrects what was gathered from the answer to a registration: that it changed
// something, because the instance last changed in the entry that holds it. Where the
// same registration of somebody else stands before it in that entry, the change is his.
func (c *checks) settle(r *Record) {
	if !r.Changed || len(r.Cells) != 1 || len(c.log.of(r)) > 0 {
		return
	}
	for _, e := range c.log.keys[keyOf(r.Service, r.Instance)] {
		if e.Index == r.Index && c.log.looks[e].hash == r.Cells[0].Hash {
			r.Changed, r.Created = false, false
			return
		}
	}
}

// checkAnswer asks that every answer is one that the contract has.
func (c *checks) checkAnswer(r *Record) {
	switch {
	case r.Status >= 500 && r.Status != 503 && r.Status != 504, r.Status >= 300 && r.Status < 400 && r.Status != 304:
		c.violate("answer", []int64{r.ID}, "%s was answered %d %s %s", r.Kind, r.Status, r.Code, r.Error)
	case r.Status > 0 && r.Outcome == Unknown && r.Code == "" && strings.Contains(r.Error, ": "):
		// A body that was cut off is no such thing: its error has no colon.
		c.violate("answer", []int64{r.ID}, "%s was answered %d with %s", r.Kind, r.Status, r.Error)
	case r.Code == "invalid_index", r.Code == "unknown_parameter", r.Code == "invalid_json", r.Code == "fenced", r.Code == "conflicting_field":
		c.violate("answer", []int64{r.ID}, "%s was refused as %s", r.Kind, r.Code)
	}
}

// checkSize asks that the run was one.
func (c *checks) checkSize() {
	c.Lasted = time.Duration(c.last)
	all := 0
	for k, n := range c.Attempts {
		if k != KindMessage && k != KindReached {
			all += n[OK] + n[Fail] + n[Unknown]
		}
	}
	if c.last > 0 {
		c.Rate = float64(all) / c.Lasted.Seconds()
	}
	if c.bounds.Short {
		return
	}
	if c.Rate < c.bounds.MinRate {
		c.Invalid = append(c.Invalid, fmt.Sprintf("%.1f attempts a second are fewer than %.0f", c.Rate, c.bounds.MinRate))
	}
	for _, k := range []Kind{KindRegister, KindDeregister, KindBeat, KindRead, KindPoll, KindEvents, KindOpen, KindMessage, KindFinal, KindReached} {
		if c.Attempts[k][OK] == 0 {
			c.Invalid = append(c.Invalid, fmt.Sprintf("no %s went well", k))
		}
	}
	if c.Linear == 0 || c.Views == 0 || c.Changes == 0 || c.Leases.Ended == 0 {
		c.Invalid = append(c.Invalid, "a checker had nothing to check")
	}
}
