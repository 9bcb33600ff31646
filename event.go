package muster

import "time"

// EventType names a kind of transition.
type EventType string

// The kinds of transition.
const (
	EventRegistered   EventType = "registered"
	EventUpdated      EventType = "updated"
	EventDeregistered EventType = "deregistered"
	EventExpired      EventType = "expired"
	// EventStatus is a change of status, of the suspect mark or of the override.
	EventStatus EventType = "status"
	// EventSettings is a change of the settings of a service: it has no ID.
	EventSettings EventType = "settings"
)

// Event is one transition of one instance, or of the settings of a service.
// Events are immutable.
type Event struct {
	// Index is the index of the log entry; the events of one entry share it.
	Index     uint64    `json:"index"`
	Time      time.Time `json:"time"`
	Type      EventType `json:"type"`
	Namespace string    `json:"namespace"`
	Service   string    `json:"service"`
	ID        string    `json:"id"`
	Cause     Cause     `json:"cause"`
	// Actor is who caused it: "ip:<client>", "node:<id>" or a token's name.
	Actor  string `json:"actor,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Status and PrevStatus are the statuses after and before; empty where the
	// instance was not there.
	Status     Status `json:"status,omitempty"`
	PrevStatus Status `json:"prev_status,omitempty"`
	// Instance is the instance after the event; nil once it is gone, and in the
	// journal.
	Instance *Instance `json:"instance"`
	// Settings are those of the service after an EventSettings; nil where it has
	// none of its own any more, with every other type, and in the journal.
	Settings *Settings `json:"settings,omitempty"`
}

// EventQuery selects events of the journal.
type EventQuery struct {
	Namespace string
	Service   string // "": of every service
	Instance  string // "": of every instance
	Since     uint64 // events with a higher index; 0: all that are kept
	Limit     int    // 1 to MaxEvents; the latest that many are answered, in order
}

// Events is what GET /v1/events answers.
type Events struct {
	// Index is the index up to which the journal answers.
	Index  uint64   `json:"index"`
	Events []*Event `json:"events"`
	// Truncated says that older events that match were left out by the limit, or
	// are no longer kept.
	Truncated bool `json:"truncated"`
}
