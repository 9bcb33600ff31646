package chaos

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/muster-registry/muster"
)

// cellOf reads an instance as an answer shows it.
func cellOf(raw []byte) (Cell, error) {
	var i struct {
		ID          string            `json:"id"`
		Meta        map[string]string `json:"meta"`
		ModifyIndex uint64            `json:"modify_index"`
		TTL         string            `json:"ttl"`
	}
	if err := json.Unmarshal(raw, &i); err != nil {
		return Cell{}, fmt.Errorf("an instance: %w", err)
	}
	ttl, err := time.ParseDuration(i.TTL)
	if err != nil {
		ttl = 0
	}
	return Cell{ID: i.ID, Value: i.Meta["op"], Modify: i.ModifyIndex, Hash: hashOf(raw), TTL: ttl.Milliseconds()}, nil
}

// viewOf reads a view.
func viewOf(raw []byte) (service string, index uint64, cells []Cell, err error) {
	var v struct {
		Service   string            `json:"service"`
		Index     uint64            `json:"index"`
		Instances []json.RawMessage `json:"instances"`
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return "", 0, nil, fmt.Errorf("a view: %w", err)
	}
	for _, i := range v.Instances {
		c, err := cellOf(i)
		if err != nil {
			return "", 0, nil, err
		}
		cells = append(cells, c)
	}
	return v.Service, v.Index, cells, nil
}

// eventOf reads an event.
func eventOf(raw []byte) (Event, error) {
	var e struct {
		muster.Event
		Instance json.RawMessage `json:"instance"`
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return Event{}, fmt.Errorf("an event: %w", err)
	}
	out := Event{
		Index: e.Index, Type: string(e.Type), Service: e.Service, ID: e.ID, Cause: string(e.Cause),
		Time: e.Time.UnixMilli(), Reason: e.Reason, Status: string(e.Status),
	}
	if len(e.Instance) > 0 && string(e.Instance) != "null" {
		cell, err := cellOf(e.Instance)
		if err != nil {
			return Event{}, err
		}
		out.Hash, out.Value = cell.Hash, cell.Value
	}
	return out, nil
}

func eventsOf(raws []json.RawMessage) ([]Event, error) {
	events := make([]Event, 0, len(raws))
	for _, raw := range raws {
		e, err := eventOf(raw)
		if err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	return events, nil
}
