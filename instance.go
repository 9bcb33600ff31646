package muster

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// OnExpiry says what becomes of an instance whose lease runs out.
type OnExpiry string

// What becomes of an instance whose lease runs out.
const (
	// ExpiryRemove removes it; the default.
	ExpiryRemove OnExpiry = "remove"
	// ExpiryDown keeps it as down for remove_after.
	ExpiryDown OnExpiry = "down"
)

// Instance is one running copy of a service. The first block of fields is the
// owner's to send, the second is the registry's and is ignored in a request. An
// Instance that a View holds is immutable.
type Instance struct {
	Namespace string         `json:"namespace"`
	Service   string         `json:"service"`
	ID        string         `json:"id"`
	Address   string         `json:"address"`
	Port      int            `json:"port"`
	Ports     map[string]int `json:"ports,omitempty"`
	Version   string         `json:"version,omitempty"`
	Zone      string         `json:"zone,omitempty"`
	// Weight is its share of traffic, 0–65535; 0 takes no new traffic. Decoders
	// set DefaultWeight before they read a body.
	Weight int               `json:"weight"`
	Tags   []string          `json:"tags,omitempty"`
	Meta   map[string]string `json:"meta,omitempty"`
	// TTL is the life of the instance's own lease; zero where it names a shared one.
	TTL      TTL      `json:"ttl,omitzero"`
	OnExpiry OnExpiry `json:"on_expiry,omitempty"`
	// RemoveAfter is how long an instance that is down by expiry is kept.
	RemoveAfter Duration `json:"remove_after,omitempty"`
	Checks      []Check  `json:"checks,omitempty"`
	// Incarnation is higher at each start of the owner; 0 asks for no fencing.
	Incarnation uint64 `json:"incarnation,omitempty"`

	Status        Status    `json:"status,omitempty"`
	Routable      bool      `json:"routable"`
	Suspect       bool      `json:"suspect"`
	SuspectSince  time.Time `json:"suspect_since,omitzero"`
	SuspectReason string    `json:"suspect_reason,omitempty"`
	StatusCause   Cause     `json:"status_cause,omitempty"`
	StatusSince   time.Time `json:"status_since,omitzero"`
	// HeldUntil is when an instance that changed too often is let out again.
	HeldUntil time.Time `json:"held_until,omitzero"`
	Override  *Override `json:"override,omitempty"`
	// LeaseID is the instance's own lease, or the shared one that it named.
	LeaseID      LeaseID   `json:"lease_id,omitzero"`
	RegisteredAt time.Time `json:"registered_at,omitzero"`
	CreateIndex  uint64    `json:"create_index,omitempty"`
	ModifyIndex  uint64    `json:"modify_index,omitempty"`
	// Place is the place of the last change within its log entry; with
	// ModifyIndex it makes the instance's ETag.
	Place int `json:"-"`
	// ChecksFrom is the index of the entry with which the present life of its
	// checks began; what was found out in an earlier one says nothing of it. 0
	// where it has no checks.
	ChecksFrom uint64 `json:"-"`
}

// ETag is the entity tag of the instance, without quotes.
func (i *Instance) ETag() string { return fmt.Sprintf("%d-%d", i.ModifyIndex, i.Place) }

// ParseETag reads what ETag writes, or a bare modify index (place -1).
func ParseETag(s string) (modifyIndex uint64, place int, err error) {
	if !strings.Contains(s, "-") {
		modifyIndex, err = ParseIndex(s)
		return modifyIndex, -1, err
	}
	modifyIndex, place, err = parsePair(s)
	if err != nil {
		err = Errorf(CodeInvalidIndex, "%q is not an entity tag of an instance", clip(s))
	}
	return modifyIndex, place, err
}

// Normalize checks what the owner sent, fills in defaults and brings it into
// canonical form: names folded, tags sorted and unique, addresses canonical,
// empty maps nil. It reports everything that is wrong with i in one *Error whose
// code is that of the first fault. The registry's own fields are cleared, the
// lease id excepted.
func (i *Instance) Normalize() error {
	*i = Instance{
		Namespace: i.Namespace, Service: i.Service, ID: i.ID, Address: i.Address, Port: i.Port, Ports: i.Ports,
		Version: i.Version, Zone: i.Zone, Weight: i.Weight, Tags: i.Tags, Meta: i.Meta, TTL: i.TTL,
		OnExpiry: i.OnExpiry, RemoveAfter: i.RemoveAfter, Checks: i.Checks, Incarnation: i.Incarnation, LeaseID: i.LeaseID,
	}
	var f faults
	var err error
	if i.Namespace, err = CleanNamespace(i.Namespace); err != nil {
		f.addErr("/namespace", err)
	}
	if i.Service, err = CleanService(i.Service); err != nil {
		f.addErr("/service", err)
	}
	if err := CheckID(i.ID); err != nil {
		f.addErr("/id", err)
	}
	if i.Address, err = CleanAddress(i.Address); err != nil {
		f.addErr("/address", err)
	}
	i.normalizePorts(&f)
	i.normalizeText(&f)
	i.normalizeLife(&f)
	i.normalizeChecks(&f)
	if i.Weight < 0 || i.Weight > MaxWeight {
		f.add("/weight", CodeInvalidPort, fmt.Sprintf("weight %d is not between 0 and %d", i.Weight, MaxWeight))
	}
	if i.Incarnation > MaxIncarnation {
		f.add("/incarnation", CodeInvalidIndex, "incarnation is above 2^53-1")
	}
	return f.err()
}

// HostPort is where the instance takes connections: at its port, or at the named one
// where name is not "". ok is false where it has no port of that name.
func (i *Instance) HostPort(name string) (addr string, ok bool) {
	port, ok := i.Port, true
	if name != "" {
		port, ok = i.Ports[name]
	}
	return net.JoinHostPort(i.Address, strconv.Itoa(port)), ok
}

func (i *Instance) normalizePorts(f *faults) {
	if i.Port < 1 || i.Port > 65535 {
		f.add("/port", CodeInvalidPort, fmt.Sprintf("port %d is not between 1 and 65535", i.Port))
	}
	if len(i.Ports) == 0 {
		i.Ports = nil
	}
	if len(i.Ports) > MaxPorts {
		f.add("/ports", CodeMetadataTooLarge, fmt.Sprintf("%d named ports are more than %d", len(i.Ports), MaxPorts))
	}
	for _, name := range slices.Sorted(maps.Keys(i.Ports)) {
		if !validName(name, "._-") {
			f.add("/ports", CodeInvalidName, fmt.Sprintf("port name %q is not a name", clip(name)))
		}
		if p := i.Ports[name]; p < 1 || p > 65535 {
			f.add("/ports/"+escapePointer(name), CodeInvalidPort, fmt.Sprintf("port %d is not between 1 and 65535", p))
		}
	}
}

func (i *Instance) normalizeText(f *faults) {
	text := func(pointer, s string) {
		if len(s) > MaxNameLen || !printable(s) {
			f.add(pointer, CodeInvalidName, fmt.Sprintf("is longer than %d bytes or holds control characters", MaxNameLen))
		}
	}
	text("/version", i.Version)
	text("/zone", i.Zone)
	if len(i.Tags) > MaxTags {
		f.add("/tags", CodeMetadataTooLarge, fmt.Sprintf("%d tags are more than %d", len(i.Tags), MaxTags))
	}
	for n, tag := range i.Tags {
		pointer := fmt.Sprintf("/tags/%d", n)
		switch {
		case len(tag) > MaxTagLen:
			f.add(pointer, CodeMetadataTooLarge, fmt.Sprintf("tag is longer than %d bytes", MaxTagLen))
		case tag == "" || !printable(tag):
			f.add(pointer, CodeInvalidName, "tag is empty or holds control characters")
		}
	}
	if i.Tags = slices.Compact(slices.Sorted(slices.Values(i.Tags))); len(i.Tags) == 0 {
		i.Tags = nil
	}
	if len(i.Meta) == 0 {
		i.Meta = nil
	}
	if len(i.Meta) > MaxMetaPairs {
		f.add("/meta", CodeMetadataTooLarge, fmt.Sprintf("%d pairs are more than %d", len(i.Meta), MaxMetaPairs))
	}
	total := 0
	for _, k := range slices.Sorted(maps.Keys(i.Meta)) {
		v := i.Meta[k]
		total += len(k) + len(v)
		switch pointer := "/meta/" + escapePointer(clip(k)); {
		case len(k) > MaxMetaKeyLen:
			f.add(pointer, CodeMetadataTooLarge, fmt.Sprintf("key is longer than %d bytes", MaxMetaKeyLen))
		case len(v) > MaxMetaValueLen:
			f.add(pointer, CodeMetadataTooLarge, fmt.Sprintf("value is longer than %d bytes", MaxMetaValueLen))
		case k == "" || !printable(k) || !printable(v):
			f.add(pointer, CodeInvalidName, "key is empty, or key or value holds control characters")
		}
	}
	if total > MaxMetaBytes {
		f.add("/meta", CodeMetadataTooLarge, fmt.Sprintf("%d bytes of metadata are more than %d", total, MaxMetaBytes))
	}
}

func (i *Instance) normalizeLife(f *faults) {
	if i.TTL == 0 && i.LeaseID == 0 {
		i.TTL = TTL(DefaultTTL)
	}
	if i.TTL != 0 && i.TTL != NoTTL {
		var t TTL
		if err := t.set(i.TTL.Duration()); err != nil {
			f.addErr("/ttl", err)
		}
	}
	if i.OnExpiry == "" {
		i.OnExpiry = ExpiryRemove
	}
	switch i.OnExpiry {
	case ExpiryRemove:
		if i.RemoveAfter != 0 {
			f.add("/remove_after", CodeConflictingField, `remove_after goes with "on_expiry":"down"`)
		}
	case ExpiryDown:
		if i.RemoveAfter == 0 {
			i.RemoveAfter = Duration(DefaultRemoveAfter)
		}
		if d := time.Duration(i.RemoveAfter); d < time.Second || d > MaxRemoveAfter {
			f.add("/remove_after", CodeInvalidDuration, fmt.Sprintf("remove_after %s is not between 1s and %s", d, MaxRemoveAfter))
		}
	default:
		f.add("/on_expiry", CodeConflictingField, fmt.Sprintf("on_expiry %q is not remove or down", clip(string(i.OnExpiry))))
	}
}

func (i *Instance) normalizeChecks(f *faults) {
	if len(i.Checks) == 0 {
		i.Checks = nil
		return
	}
	if len(i.Checks) > MaxChecks {
		f.add("/checks", CodeInvalidCheck, fmt.Sprintf("%d checks are more than %d", len(i.Checks), MaxChecks))
		return
	}
	i.Checks = slices.Clone(i.Checks)
	names := map[string]bool{}
	for n := range i.Checks {
		c := &i.Checks[n]
		pointer := fmt.Sprintf("/checks/%d", n)
		if err := c.normalize(n, i.Service); err != nil {
			f.add(pointer, CodeInvalidCheck, err.Error())
		}
		if names[c.Name] {
			f.add(pointer+"/name", CodeInvalidCheck, fmt.Sprintf("another check is named %q", clip(c.Name)))
		}
		names[c.Name] = true
	}
}

// SameSpec reports whether two normalized instances were sent alike by their
// owners, leases by id and incarnations aside.
func (i *Instance) SameSpec(o *Instance) bool {
	return i.Address == o.Address && i.Port == o.Port && i.Version == o.Version && i.Zone == o.Zone &&
		i.Weight == o.Weight && i.TTL == o.TTL && i.OnExpiry == o.OnExpiry && i.RemoveAfter == o.RemoveAfter &&
		maps.Equal(i.Ports, o.Ports) && maps.Equal(i.Meta, o.Meta) && slices.Equal(i.Tags, o.Tags) && SameChecks(i.Checks, o.Checks)
}

// faults gathers what is wrong with a request.
type faults struct {
	code   Code
	detail string
	hint   string
	fields []FieldError
}

func (f *faults) add(pointer string, code Code, detail string) {
	if f.code == "" {
		f.code, f.detail = code, strings.TrimPrefix(pointer, "/")+": "+detail
	}
	f.fields = append(f.fields, FieldError{Pointer: pointer, Detail: detail})
}

func (f *faults) addErr(pointer string, err error) {
	e := err.(*Error)
	if f.code == "" {
		f.hint = e.Hint
	}
	f.add(pointer, e.Code, e.Detail)
}

func (f *faults) err() error {
	if f.code == "" {
		return nil
	}
	return &Error{Code: f.code, Detail: f.detail, Hint: f.hint, Fields: f.fields}
}

// pointerEscapes is made once: building it costs more than all the rest of a check.
var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// escapePointer escapes a reference token of a JSON pointer (RFC 6901 §3).
func escapePointer(s string) string { return pointerEscapes.Replace(s) }
