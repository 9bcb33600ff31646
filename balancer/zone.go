package balancer

import "math"

// zone is how picks that prefer one zone are spread.
type zone struct {
	local, rest tier
	// stay is the chance, of 2^64, that a pick stays in the zone.
	stay uint64
}

// zoned returns the part of p for a pick that prefers a zone; chance is a random
// number. The zone keeps all picks while the share of its capacity that can be
// picked reaches the settings' ZoneThreshold, and below that only as much as its
// share is of the threshold: the rest spills over to the other zones, as in Envoy's
// priority levels (whose overprovisioning factor of 140 % is a threshold of 71 %).
func (p *pool) zoned(name string, chance uint64) *tier {
	p.zonesOnce.Do(p.divide)
	z := p.zones[name]
	switch {
	case z == nil || z.local.n == 0 || z.rest.n == 0:
		// Nobody is there, or nobody elsewhere.
		return &p.all
	case chance <= z.stay:
		return &z.local
	}
	return &z.rest
}

// divide makes the zones of p. They cost a few words each, because a zone is a
// stretch of the positions and the others are what lies around it.
func (p *pool) divide() {
	p.zones = make(map[string]*zone, len(p.roster.zones))
	if p.roster.zones == nil {
		return
	}
	if p.roster.weights != nil {
		p.weigh()
	}
	capacity := map[string]int{} // of all of a zone's instances
	for _, i := range p.view.Instances {
		capacity[i.Zone] += i.Weight
	}
	pos := int32(0)
	for _, s := range p.roster.zones {
		z := &zone{}
		lo, usable := pos, 0
		for ; pos < p.all.n && s.has(p.place(pos)); pos++ {
			usable += p.roster.insts[p.place(pos)].Weight
		}
		z.local = tier{span: s, lo: lo, n: pos - lo}
		z.rest = tier{span: p.roster.whole, skip: s, rest: true, lo: lo, gap: pos - lo, n: p.all.n - (pos - lo)}
		if p.roster.weights != nil {
			z.cut(p.wheel, lo, pos)
		}
		z.local.begin(p.all.turn.Load(), p.all.phase.Load())
		z.rest.begin(p.all.turn.Load(), p.all.phase.Load())
		z.stay = stay(usable, capacity[s.zone], p.settings.ZoneThreshold)
		p.zones[s.zone] = z
	}
}

// cut finds the zone's stretch on the wheel.
func (z *zone) cut(w *wheel, lo, hi int32) {
	base := w.start(lo)
	width := w.start(hi) - base
	z.local.base, z.local.width, z.local.total = base, width, width
	z.rest.base, z.rest.width, z.rest.total = base, width, w.sum()-width
}

func stay(usable, capacity, threshold int) uint64 {
	share := float64(usable) / float64(capacity) * 100
	if share >= float64(threshold) {
		return math.MaxUint64
	}
	return uint64(share / float64(threshold) * math.MaxUint64)
}
