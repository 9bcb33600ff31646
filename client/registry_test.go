package client_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/problem"
)

// registry is a small registry in memory, as its clients see it: instances with
// leases, tombstones, views, a stream. Its nodes share it.
type registry struct {
	mu       sync.Mutex
	cluster  string
	index    uint64
	stored   map[muster.InstanceKey]*stored
	tombs    map[muster.InstanceKey]uint64 // incarnations that were deregistered
	empty    map[muster.ServiceKey]muster.EmptyReason
	settings map[muster.ServiceKey]*muster.Settings
	touched  map[muster.ServiceKey]uint64
	events   []*muster.Event
	changed  chan struct{}
	noWatch  bool // GET /v1/watch is refused
	stale    int64
	batches  []int // sizes of the heartbeat batches taken
	seen     []string
	agents   map[string]int // requests by User-Agent
}

type stored struct {
	instance muster.Instance
	until    time.Time // zero: persistent
}

func newRegistry() *registry {
	r := &registry{changed: make(chan struct{}), agents: map[string]int{}}
	r.forget("c-1")
	return r
}

// forget makes it another, empty registry.
func (r *registry) forget(cluster string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cluster, r.index, r.events = cluster, 10, nil
	r.stored, r.tombs = map[muster.InstanceKey]*stored{}, map[muster.InstanceKey]uint64{}
	r.empty, r.touched = map[muster.ServiceKey]muster.EmptyReason{}, map[muster.ServiceKey]uint64{}
	r.settings = map[muster.ServiceKey]*muster.Settings{}
	r.wake()
}

func (r *registry) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// emit is called with mu held.
func (r *registry) emit(t muster.EventType, i *muster.Instance, gone bool) {
	e := &muster.Event{Index: r.index, Time: time.Now(), Type: t, Namespace: i.Namespace, Service: i.Service, ID: i.ID}
	if !gone {
		c := *i
		e.Instance = &c
	}
	r.events = append(r.events, e)
	r.touched[muster.ServiceKey{Namespace: i.Namespace, Service: i.Service}] = r.index
	r.wake()
}

// expire ends what ran out. It is called with mu held.
func (r *registry) expire() {
	now := time.Now()
	for k, s := range r.stored {
		if !s.until.IsZero() && now.After(s.until) {
			r.remove(k, muster.EventExpired, muster.EmptyExpired)
		}
	}
}

func (r *registry) remove(k muster.InstanceKey, t muster.EventType, why muster.EmptyReason) {
	s := r.stored[k]
	delete(r.stored, k)
	r.index++
	r.empty[muster.ServiceKey{Namespace: k.Namespace, Service: k.Service}] = why
	r.emit(t, &s.instance, true)
}

func (r *registry) register(i muster.Instance) error {
	if err := i.Normalize(); err != nil {
		return err
	}
	k := muster.InstanceKey{Namespace: i.Namespace, Service: i.Service, ID: i.ID}
	old := r.stored[k]
	if old != nil && i.Incarnation < old.instance.Incarnation || i.Incarnation != 0 && i.Incarnation <= r.tombs[k] {
		return muster.Errorf(muster.CodeFenced, "incarnation %d is too low", i.Incarnation)
	}
	until := time.Time{}
	if d := i.TTL.Duration(); d > 0 {
		until = time.Now().Add(d)
	}
	if old != nil && old.instance.SameSpec(&i) && old.instance.Incarnation == i.Incarnation {
		old.until = until
		return nil
	}
	r.index++
	i.Status, i.Routable, i.CreateIndex, i.ModifyIndex = muster.StatusUp, i.Weight > 0, r.index, r.index
	r.stored[k] = &stored{i, until}
	r.emit(muster.EventRegistered, &i, false)
	return nil
}

// put registers from the side.
func (r *registry) put(i muster.Instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i.Weight == 0 {
		i.Weight = muster.DefaultWeight
	}
	if i.Address == "" {
		i.Address, i.Port = "10.0.0.1", 80
	}
	if err := r.register(i); err != nil {
		panic(err)
	}
}

// drop deregisters, or expires, from the side.
func (r *registry) drop(service, id string, t muster.EventType, why muster.EmptyReason) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(muster.InstanceKey{Namespace: muster.DefaultNamespace, Service: service, ID: id}, t, why)
}

// configure gives a service settings, or takes them away.
func (r *registry) configure(service string, s *muster.Settings) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := muster.ServiceKey{Namespace: muster.DefaultNamespace, Service: service}
	r.index++
	r.settings[k], r.touched[k] = s, r.index
	r.events = append(r.events, &muster.Event{Index: r.index, Type: muster.EventSettings, Namespace: k.Namespace, Service: service, Settings: s})
	r.wake()
}

// find returns what is stored, nil where nothing is.
func (r *registry) find(service, id string) *muster.Instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expire()
	s := r.stored[muster.InstanceKey{Namespace: muster.DefaultNamespace, Service: service, ID: id}]
	if s == nil {
		return nil
	}
	c := s.instance
	return &c
}

func (r *registry) view(k muster.ServiceKey) (*muster.View, bool) {
	v := &muster.View{Namespace: k.Namespace, Service: k.Service, Index: r.touched[k], Instances: []*muster.Instance{}, EmptyReason: r.empty[k], Settings: r.settings[k]}
	for ik, s := range r.stored {
		if ik.Namespace == k.Namespace && ik.Service == k.Service {
			c := s.instance
			v.Instances = append(v.Instances, &c)
			v.EmptyReason = ""
		}
	}
	slices.SortFunc(v.Instances, func(a, b *muster.Instance) int { return strings.Compare(a.ID, b.ID) })
	return v, v.Index > 0
}

// ServeHTTP answers the routes the client needs.
func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.expire()
	r.seen = append(r.seen, req.Method+" "+req.URL.RequestURI())
	r.agents[req.UserAgent()]++
	w.Header().Set("Muster-Cluster", r.cluster)
	path := req.URL.Path
	if path == "/v1/watch" {
		r.mu.Unlock()
		r.watch(w, req)
		return
	}
	defer r.mu.Unlock()
	least, _ := strconv.ParseUint(req.URL.Query().Get("min_index"), 10, 64)
	if least > r.index {
		refuse(w, muster.Errorf(muster.CodeBehind, "at %d", r.index))
		return
	}
	var answer any
	var err error
	switch {
	case path == "/v1/batch/register":
		answer, err = r.batch(req)
	case path == "/v1/heartbeats":
		answer, err = r.beats(req)
	case req.Method == "GET" && strings.HasPrefix(path, "/v1/services/"):
		answer, err = r.get(w, req)
	case req.Method == "DELETE":
		err = r.delete(req)
	case req.Method == "PUT":
		var i muster.Instance
		if err = json.NewDecoder(req.Body).Decode(&i); err == nil {
			err = r.register(i)
			answer = i
		}
	case path == "/v1/version":
		answer = map[string]string{"version": "test"}
	default:
		err = muster.Errorf(muster.CodeNotFound, "no such route")
	}
	if w.Header().Get("Muster-Index") == "" {
		w.Header().Set("Muster-Index", strconv.FormatUint(r.index, 10))
	}
	if err != nil {
		refuse(w, err)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (r *registry) batch(req *http.Request) (any, error) {
	var in struct{ Instances []muster.Instance }
	if err := json.NewDecoder(req.Body).Decode(&in); err != nil {
		return nil, muster.Errorf(muster.CodeInvalidJSON, "%v", err)
	}
	for _, i := range in.Instances {
		if i.Meta["unknown"] != "" {
			return nil, muster.Errorf(muster.CodeUnknownField, "nobody knows this field")
		}
	}
	type result struct {
		Namespace string           `json:"namespace"`
		Service   string           `json:"service"`
		ID        string           `json:"id"`
		Error     *problem.Problem `json:"error,omitempty"`
	}
	var out struct {
		Results []result `json:"results"`
	}
	for _, i := range in.Instances {
		res := result{Namespace: i.Namespace, Service: i.Service, ID: i.ID}
		if err := r.register(i); err != nil {
			res.Error = problem.New(err, "", "")
		}
		out.Results = append(out.Results, res)
	}
	return out, nil
}

func (r *registry) beats(req *http.Request) (any, error) {
	var in muster.Heartbeats
	if err := json.NewDecoder(req.Body).Decode(&in); err != nil {
		return nil, muster.Errorf(muster.CodeInvalidJSON, "%v", err)
	}
	r.batches = append(r.batches, len(in.Instances))
	out := muster.Beats{Unknown: []string{}}
	for _, b := range in.Instances {
		s := r.stored[b.Key()]
		switch {
		case s == nil:
			out.Unknown = append(out.Unknown, b.Key().String())
		case b.Incarnation != 0 && b.Incarnation < s.instance.Incarnation:
			out.Fenced = append(out.Fenced, b.Key().String())
		case s.until.IsZero():
			out.Persistent = append(out.Persistent, b.Key().String())
		default:
			out.Renewed++
			s.until = time.Now().Add(s.instance.TTL.Duration())
			if next := muster.Duration(s.instance.TTL.Duration() / 3); out.Next == 0 || next < out.Next {
				out.Next = next
			}
		}
	}
	return out, nil
}

func serviceOf(req *http.Request) (muster.ServiceKey, string) {
	parts := strings.Split(strings.TrimPrefix(req.URL.Path, "/v1/services/"), "/")
	k := muster.ServiceKey{Namespace: muster.DefaultNamespace, Service: parts[0]}
	if ns := req.URL.Query().Get("namespace"); ns != "" {
		k.Namespace = ns
	}
	if len(parts) > 2 {
		return k, parts[2]
	}
	return k, ""
}

func (r *registry) delete(req *http.Request) error {
	sk, id := serviceOf(req)
	k := muster.InstanceKey{Namespace: sk.Namespace, Service: sk.Service, ID: id}
	incarnation, _ := strconv.ParseUint(req.URL.Query().Get("incarnation"), 10, 64)
	s := r.stored[k]
	switch {
	case s == nil && r.tombs[k] == 0:
		return muster.Errorf(muster.CodeUnknownInstance, "nothing is known of %s", k)
	case s != nil && incarnation != 0 && incarnation < s.instance.Incarnation:
		return muster.Errorf(muster.CodeFenced, "a later one is there")
	}
	r.tombs[k] = max(r.tombs[k], incarnation)
	if s != nil {
		r.remove(k, muster.EventDeregistered, muster.EmptyDeregistered)
	}
	return nil
}

// get reads a view; a long poll where index is given. It is called with mu held and
// lets go of it while it waits.
func (r *registry) get(w http.ResponseWriter, req *http.Request) (any, error) {
	k, _ := serviceOf(req)
	index, _ := strconv.ParseUint(req.URL.Query().Get("index"), 10, 64)
	wait, _ := time.ParseDuration(req.URL.Query().Get("wait"))
	end := time.NewTimer(wait)
	defer end.Stop()
	for {
		v, known := r.view(k)
		if index == 0 || known && v.Index > index || r.wait(req, end.C) != nil {
			if !known {
				return nil, muster.Errorf(muster.CodeUnknownService, "nothing is known of %s", k)
			}
			w.Header().Set("Muster-Index", strconv.FormatUint(v.Index, 10))
			return v, nil
		}
	}
}

// wait waits for a change; it lets go of mu meanwhile.
func (r *registry) wait(req *http.Request, end <-chan time.Time) error {
	changed := r.changed
	r.mu.Unlock()
	defer r.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-end:
	case <-req.Context().Done():
	}
	return fmt.Errorf("over")
}

// watch streams NDJSON.
func (r *registry) watch(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.noWatch {
		refuse(w, muster.Errorf(muster.CodeNotFound, "there is no such route"))
		return
	}
	q := req.URL.Query()
	cursor, _ := strconv.ParseUint(q.Get("from"), 10, 64)
	if c := q.Get("cluster"); c != "" && c != r.cluster || cursor > r.index {
		refuse(w, muster.Errorf(muster.CodeCursorGone, "of another cluster"))
		return
	}
	services := q["service"]
	if len(services) == 0 { // all that are known
		for k := range r.touched {
			services = append(services, k.Service)
		}
	}
	wanted := func(e *muster.Event) bool { return len(q["service"]) == 0 || slices.Contains(services, e.Service) }
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.(http.Flusher).Flush()
	if cursor == 0 {
		cursor = r.index // before the views: what happens while one is sent is told again
		for _, name := range services {
			v, _ := r.view(muster.ServiceKey{Namespace: muster.DefaultNamespace, Service: name})
			r.say(w, "snapshot", 0, v)
		}
		r.say(w, "synced", cursor, map[string]uint64{"index": cursor})
	}
	alive := time.NewTicker(15 * time.Second)
	defer alive.Stop()
	told := int64(0)
	for req.Context().Err() == nil {
		if r.stale != told {
			told = r.stale
			r.say(w, "stale", 0, map[string]int64{"stale_ms": told})
		}
		var batch []*muster.Event
		for _, e := range r.events {
			if e.Index > cursor && wanted(e) && (len(batch) == 0 || batch[0].Index == e.Index) {
				batch = append(batch, e)
			}
		}
		if len(batch) > 0 {
			cursor = batch[0].Index
			r.say(w, "change", cursor, map[string]any{"index": cursor, "events": batch})
			continue
		}
		if r.wait(req, alive.C) != nil && req.Context().Err() == nil {
			r.mu.Unlock()
			_, _ = fmt.Fprintln(w, `{"type":"keepalive"}`)
			r.mu.Lock()
		}
	}
}

// say writes one message; it lets go of mu, for the reader may be slow.
func (r *registry) say(w http.ResponseWriter, kind string, id uint64, data any) {
	b, err := json.Marshal(data)
	if err != nil {
		panic(err)
	}
	r.mu.Unlock()
	defer r.mu.Lock()
	defer w.(http.Flusher).Flush()
	if id > 0 {
		_, _ = fmt.Fprintf(w, `{"type":%q,"id":%d,"data":%s}`+"\n", kind, id, b)
	} else {
		_, _ = fmt.Fprintf(w, `{"type":%q,"data":%s}`+"\n", kind, b)
	}
}
