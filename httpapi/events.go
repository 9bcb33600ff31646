package httpapi

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/muster-registry/muster"
)

// getEvents answers GET /v1/events from the journal.
func (s *Server) getEvents(c *call) error {
	ctx, cancel, o, err := c.readContext()
	if err != nil {
		return err
	}
	defer cancel()
	q := muster.EventQuery{
		Namespace: c.values.text[paramNamespace], Service: c.values.text[paramService], Instance: c.values.text[paramInstance],
		Limit: muster.DefaultEventsLimit,
	}
	if q.Since, err = c.values.index(paramSince); err != nil {
		return err
	}
	if c.values.has(paramLimit) {
		text := c.values.text[paramLimit]
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 1 || q.Limit > muster.MaxEvents {
			return badParam(muster.CodeUnknownParameter, "limit", "", "%q is not a whole number from 1 to %d", clip(text), muster.MaxEvents)
		}
	}
	events, info, err := s.registry.Events(ctx, q, o)
	c.setRead(info)
	if err != nil {
		return err
	}
	body, err := s.rendered.of(fmt.Sprintf("events %d %+v", events.Index, q), events)
	if err != nil {
		return err
	}
	return c.send(http.StatusOK, typeJSON, body)
}
