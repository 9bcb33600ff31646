package health

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/muster-registry/muster"
)

// checkHash is a hash of a check's name that is the same on every node.
func checkHash(k muster.InstanceKey, place int) uint64 {
	var d xxhash.Digest
	d.Reset()
	for _, s := range [...]string{k.Namespace, k.Service, k.ID} {
		_, _ = d.WriteString(s) // a hash takes every byte
		_, _ = d.Write([]byte{0})
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(place))
	_, _ = d.Write(b[:])
	return d.Sum64()
}

// probers is a set of nodes among which checks are shared out.
type probers struct {
	ids    []string
	hashes []uint64
}

func newProbers(ids []string) *probers {
	p := &probers{ids: ids}
	for _, id := range ids {
		p.hashes = append(p.hashes, xxhash.Sum64String(id))
	}
	return p
}

// owners are the two nodes with the highest weight for a check: rendezvous
// hashing (Thaler and Ravishankar, 1998). A node that joins or leaves moves only
// the checks that it comes to own or owned. second is empty where there is only
// one node, both where there is none.
func (p *probers) owners(check uint64) (first, second string) {
	var w1, w2 uint64
	for n, id := range p.ids {
		switch w := mix(check ^ p.hashes[n]); {
		case first == "" || w > w1 || w == w1 && id < first:
			first, second, w1, w2 = id, first, w, w1
		case second == "" || w > w2 || w == w2 && id < second:
			second, w2 = id, w
		}
	}
	return first, second
}

// mix is the finaliser of splitmix64 (Steele, Lea and Flood, 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Owners are the nodes that probe a check of an instance, by its place among the
// instance's checks: at most two of ids.
func Owners(ids []string, k muster.InstanceKey, place int) []string {
	first, second := newProbers(ids).owners(checkHash(k, place))
	switch {
	case first == "":
		return nil
	case second == "":
		return []string{first}
	}
	return []string{first, second}
}
