package cluster

import (
	"testing"
	"time"
)

// member makes a voter that is well; with makes it otherwise.
func voter(id string, with ...func(*memberView)) memberView {
	m := memberView{id: id, addr: id + ":7401", voter: true, live: true, okFor: time.Hour, sameTerm: true, wanted: true}
	for _, f := range with {
		f(&m)
	}
	return m
}

func learner(id string, with ...func(*memberView)) memberView {
	return voter(id, append([]func(*memberView){func(m *memberView) { m.voter = false }}, with...)...)
}

func dead(d time.Duration) func(*memberView) {
	return func(m *memberView) { m.live, m.okFor, m.deadFor = false, 0, d }
}

func leaving(m *memberView)   { m.leaving = true }
func removed(m *memberView)   { m.removed = true }
func young(m *memberView)     { m.okFor = time.Second }
func behind(m *memberView)    { m.lag = maxPromotionLag }
func ofOldTerm(m *memberView) { m.sameTerm = false }
func usurped(m *memberView)   { m.usurper = "x" }
func movedTo(a string) func(*memberView) {
	return func(m *memberView) { m.movedTo = a }
}

func joiner(id string, with ...func(*newcomer)) newcomer {
	c := newcomer{id: id, addr: id + ":7401", wanted: true}
	for _, f := range with {
		f(&c)
	}
	return c
}

func TestNextChange(t *testing.T) {
	three := []memberView{voter("a"), voter("b"), voter("c")}
	with := func(ms ...memberView) []memberView { return append(append([]memberView(nil), three...), ms...) }
	for name, tc := range map[string]struct {
		members   []memberView
		newcomers []newcomer
		expect    int
		want      changeKind
		id        string
	}{
		"nothing to do":                          {members: three, want: changeNone},
		"a newcomer becomes a learner":           {members: three, newcomers: []newcomer{joiner("d")}, want: changeAdd, id: "d"},
		"a removed newcomer does not":            {members: three, newcomers: []newcomer{joiner("d", func(c *newcomer) { c.removed = true })}},
		"nor one of another cluster":             {members: three, newcomers: []newcomer{joiner("d", func(c *newcomer) { c.foreign = true })}},
		"nor one that is leaving":                {members: three, newcomers: []newcomer{joiner("d", func(c *newcomer) { c.leaving = true })}},
		"nor one at the address of a member":     {members: three, newcomers: []newcomer{joiner("d", func(c *newcomer) { c.addr = "b:7401" })}},
		"a fourth stays a learner":               {members: with(learner("d"))},
		"a fourth and a fifth get votes":         {members: with(learner("d"), learner("e")), want: changePromote, id: "d"},
		"the fifth follows the fourth":           {members: with(voter("d"), learner("e")), want: changePromote, id: "e"},
		"a learner takes the place of the dead":  {members: []memberView{voter("a"), voter("b"), voter("c", dead(time.Minute)), learner("d")}, want: changePromote, id: "d"},
		"but not while it is young":              {members: []memberView{voter("a"), voter("b"), voter("c", dead(time.Minute)), learner("d", young)}},
		"nor while it lags":                      {members: []memberView{voter("a"), voter("b"), voter("c", dead(time.Minute)), learner("d", behind)}},
		"nor in another term":                    {members: []memberView{voter("a"), voter("b"), voter("c", dead(time.Minute)), learner("d", ofOldTerm)}},
		"the second of two stays a learner":      {members: []memberView{voter("a"), learner("b")}},
		"unless two were expected":               {members: []memberView{voter("a"), learner("b")}, expect: 2, want: changePromote, id: "b"},
		"a decided removal is finished first":    {members: with(learner("d", removed), learner("e")), want: changeRemove, id: "d"},
		"one that leaves is removed":             {members: []memberView{voter("a"), voter("b", leaving), voter("c")}, want: changeRemove, id: "b"},
		"not at the price of the quorum":         {members: []memberView{voter("a"), voter("b", leaving), voter("c", dead(time.Second))}},
		"not at the price of the quorum of four": {members: []memberView{voter("a"), voter("b", leaving), voter("c", dead(time.Second)), voter("d")}, want: changeRemove, id: "b"},
		"a leader that leaves hands over":        {members: []memberView{voter("a", leaving), voter("b"), voter("c")}, want: changeHandOff, id: "a"},
		"the last one cannot leave":              {members: []memberView{voter("a", leaving)}},
		"a new address is taken over":            {members: []memberView{voter("a"), voter("b", movedTo("b2:7401")), voter("c")}, want: changeMove, id: "b"},
		"unless another member has it":           {members: []memberView{voter("a"), voter("b", movedTo("c:7401")), voter("c")}},
		"a wiped member is replaced":             {members: []memberView{voter("a"), voter("b", dead(time.Second), usurped), voter("c")}, want: changeRemove, id: "b"},
		"but not while it lives":                 {members: []memberView{voter("a"), voter("b", usurped), voter("c")}},
		"nor without a majority":                 {members: []memberView{voter("a"), voter("b", dead(time.Second), usurped), voter("c", dead(time.Second))}},
		"even of two":                            {members: []memberView{voter("a"), voter("b", dead(time.Second), usurped)}, want: changeRemove, id: "b"},
		"three are not made two by a death":      {members: []memberView{voter("a"), voter("b", dead(time.Hour)), voter("c")}},
		"four are made three":                    {members: []memberView{voter("a"), voter("b", dead(time.Hour)), voter("c"), voter("d")}, want: changeRemove, id: "b"},
		"but only after ten minutes":             {members: []memberView{voter("a"), voter("b", dead(9*time.Minute)), voter("c"), voter("d")}},
		"and only down to what was expected":     {members: []memberView{voter("a"), voter("b", dead(time.Hour)), voter("c"), voter("d"), voter("e")}, expect: 5},
		"not without a majority before":          {members: []memberView{voter("a"), voter("b", dead(time.Hour)), voter("c", dead(time.Hour)), voter("d")}},
		"a dead learner goes":                    {members: with(learner("d", dead(time.Hour))), want: changeRemove, id: "d"},
		"a spare is promoted before a burial":    {members: []memberView{voter("a"), voter("b", dead(time.Hour)), voter("c"), voter("d"), learner("e")}, expect: 5, want: changePromote, id: "e"},
	} {
		t.Run(name, func(t *testing.T) {
			v := &clusterView{self: "a", expect: tc.expect, stabilise: 10 * time.Second, members: tc.members, newcomers: tc.newcomers}
			if got := v.next(); got.kind != tc.want || got.id != tc.id {
				t.Errorf("next is %q of %q (%s), want %q of %q", got.kind, got.id, got.reason, tc.want, tc.id)
			}
		})
	}
}

func TestDecideFounding(t *testing.T) {
	at := func(id string, expect int) founder { return founder{id: id, expect: expect, wanted: true} }
	for name, tc := range map[string]struct {
		seen  []founder
		found bool
		alarm bool
		quiet bool
	}{
		"all three, we are the lowest":       {seen: []founder{at("a", 3), at("b", 3), at("c", 3)}, found: true, quiet: true},
		"all three, another is the lowest":   {seen: []founder{at("A", 3), at("a", 3), at("c", 3)}, quiet: true},
		"two of three":                       {seen: []founder{at("a", 3), at("b", 3)}},
		"four of three":                      {seen: []founder{at("a", 3), at("b", 3), at("c", 3), at("d", 3)}, alarm: true},
		"one expects something else":         {seen: []founder{at("a", 3), at("b", 3), at("c", 5)}, alarm: true},
		"one that only joins does not count": {seen: []founder{at("a", 3), at("b", 3), at("c", 0)}},
		"and does not disturb":               {seen: []founder{at("a", 3), at("b", 3), at("c", 3), at("d", 0)}, found: true, quiet: true},
		"there is a cluster already":         {seen: []founder{at("a", 3), at("b", 3), {id: "c", expect: 3, wanted: true, hasState: true}}, quiet: true},
	} {
		t.Run(name, func(t *testing.T) {
			found, wait, alarm := decideFounding("a", 3, tc.seen)
			if found != tc.found || alarm != tc.alarm || (wait == "") != tc.quiet {
				t.Errorf("decided %v, %q, alarm %v", found, wait, alarm)
			}
		})
	}
}
