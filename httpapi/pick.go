package httpapi

import (
	"bytes"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/balancer"
)

// preferZone begins a ?zone= that is a wish and not a filter.
const preferZone = "prefer:"

// getPick answers GET …/pick: one instance of a service.
func (s *Server) getPick(c *call) error { return s.pick(c, false) }

// postPick answers POST …/pick: one instance, and a ticket to say what became of it.
func (s *Server) postPick(c *call) error { return s.pick(c, true) }

func (s *Server) pick(c *call, ticketed bool) error {
	c.reads = true
	w, err := c.wanted()
	if err != nil {
		return err
	}
	v, info, err := s.viewOf(c, w.query)
	c.setRead(info)
	if err != nil {
		return err
	}
	w.request.View = v
	now := time.Now()
	var a picked
	if ticketed {
		a.choice, a.ticket, err = s.start(now, &w)
	} else {
		a.choice, err = s.balancer.Pick(now, &w.request)
	}
	if err != nil {
		return err
	}
	if w.count > 0 {
		a.instances = s.balancer.More(now, &w.request, a.choice, w.count)
	}
	return c.picked(v, &a)
}

// start picks an instance for a request that is about to be made, and gives a
// ticket for it.
func (s *Server) start(now time.Time, w *wanted) (balancer.Choice, string, error) {
	choice, err := s.balancer.Start(now, &w.request)
	if err != nil {
		return choice, "", err
	}
	ticket, err := s.balancer.Ticket(now, choice, w.ttl)
	if err != nil {
		s.balancer.Drop(choice)
	}
	return choice, ticket, err
}

// viewOf reads the view of the call's service, as current as the caller asks.
func (s *Server) viewOf(c *call, q *muster.Query) (*muster.View, muster.ReadInfo, error) {
	ctx, cancel, o, err := c.readContext()
	if err != nil {
		return nil, muster.ReadInfo{}, err
	}
	defer cancel()
	return s.registry.Service(ctx, c.serviceKey(), q, o)
}

// wanted is what a pick is to be like.
type wanted struct {
	query   *muster.Query
	request balancer.Request
	count   int // of the distinct instances asked for; 0: only one, and no list
	ttl     time.Duration
}

func (c *call) wanted() (wanted, error) {
	v := c.values
	w := wanted{request: balancer.Request{Key: v.text[paramKey]}}
	var err error
	if w.query, err = v.query(); err != nil {
		return w, err
	}
	if zone, ok := strings.CutPrefix(v.text[paramZone], preferZone); ok {
		if zone == "" {
			return w, badParam(muster.CodeInvalidFilter, "zone", "write zone=prefer:eu-1a", "names no zone to prefer")
		}
		w.request.Zone, w.query.Zone = zone, ""
	}
	if v.has(paramStrategy) {
		if w.request.Strategy, err = balancer.ParseStrategy(v.text[paramStrategy]); err != nil {
			return w, v.bad(paramStrategy, err)
		}
	}
	if v.has(paramN) {
		if w.count, err = strconv.Atoi(v.text[paramN]); err != nil || w.count < 1 || w.count > muster.MaxPicks {
			return w, badParam(muster.CodeUnknownParameter, "n", "", "%q is not a whole number from 1 to %d", clip(v.text[paramN]), muster.MaxPicks)
		}
	}
	w.ttl, err = v.ticketTTL()
	return w, err
}

// ticketTTL reads how long a ticket is good for. One that cannot be given is
// refused and not cut: its holder would report too late.
func (v *values) ticketTTL() (time.Duration, error) {
	if !v.has(paramTicketTTL) {
		return muster.DefaultTicketTTL, nil
	}
	d, err := muster.ParseDuration(v.text[paramTicketTTL])
	if err != nil {
		return 0, v.bad(paramTicketTTL, err)
	}
	if d < time.Millisecond || d > muster.MaxTicketTTL {
		return 0, badParam(muster.CodeInvalidDuration, paramNames[paramTicketTTL], "", "%s is not between 1ms and %s", d, muster.MaxTicketTTL)
	}
	return d, nil
}

// picked is the answer to a pick.
type picked struct {
	choice    balancer.Choice
	instances []*muster.Instance // nil: not asked for
	ticket    string
}

// picked writes an answer, as JSON or, for a shell, as addresses alone.
func (c *call) picked(v *muster.View, a *picked) error {
	if a.ticket != "" {
		c.set(headerTicket, a.ticket)
	}
	buf := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(buf)
	buf.Reset()
	kind := typeJSON
	if c.wantsText() {
		kind = typeText
		buf.Write(a.text(buf.AvailableBuffer()))
	} else {
		buf.Write(a.json(buf.AvailableBuffer(), v))
	}
	return c.send(http.StatusOK, kind, buf.Bytes())
}

// text appends a line for each instance.
func (a *picked) text(b []byte) []byte {
	insts := a.instances
	if insts == nil {
		insts = []*muster.Instance{a.choice.Instance}
	}
	for _, i := range insts {
		b = append(b, net.JoinHostPort(i.Address, strconv.Itoa(i.Port))...)
		b = append(b, '\n')
	}
	return b
}

// json appends a [muster.Pick]. Names of strategies and tickets hold nothing that
// JSON would escape.
func (a *picked) json(b []byte, v *muster.View) []byte {
	texts := textsOf(v)
	b = append(b, `{"instance":`...)
	b = append(b, texts.of(a.choice.Instance)...)
	for n, i := range a.instances {
		if n == 0 {
			b = append(b, `,"instances":[`...)
		} else {
			b = append(b, ',')
		}
		b = append(b, texts.of(i)...)
	}
	if len(a.instances) > 0 {
		b = append(b, ']')
	}
	b = append(b, `,"strategy":"`...)
	b = append(b, a.choice.Strategy.Name()...)
	b = append(b, `","index":`...)
	b = strconv.AppendUint(b, a.choice.Index, 10)
	b = append(b, `,"panic":`...)
	b = strconv.AppendBool(b, a.choice.Panic)
	if a.ticket != "" {
		b = append(b, `,"ticket":"`...)
		b = append(b, a.ticket...)
		b = append(b, '"')
	}
	return append(b, '}')
}
