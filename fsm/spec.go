package fsm

import (
	"maps"
	"slices"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/wire"
)

// The fields of a spec: what the owner of an instance sends, its names aside.
const (
	specAddress wire.Number = iota + 1
	specPort
	specPorts
	specVersion
	specZone
	specWeight
	specTags
	specMeta
	specTTL
	specDown
	specRemoveAfter
	specChecks
	specIncarnation
	specLeaseID
)

func appendSpec(b []byte, i *muster.Instance) []byte {
	b = wire.AppendString(b, specAddress, i.Address)
	b = wire.AppendUint(b, specPort, uint64(i.Port))
	for _, name := range slices.Sorted(maps.Keys(i.Ports)) {
		b = appendMessage(b, specPorts, func(b []byte) []byte {
			return wire.AppendUint(wire.AppendString(b, 1, name), 2, uint64(i.Ports[name]))
		})
	}
	b = wire.AppendString(b, specVersion, i.Version)
	b = wire.AppendString(b, specZone, i.Zone)
	b = wire.AppendUint(b, specWeight, uint64(i.Weight))
	for _, tag := range i.Tags {
		b = wire.AppendBytes(b, specTags, []byte(tag))
	}
	for _, name := range slices.Sorted(maps.Keys(i.Meta)) {
		b = appendMessage(b, specMeta, func(b []byte) []byte {
			return wire.AppendString(wire.AppendString(b, 1, name), 2, i.Meta[name])
		})
	}
	b = appendTTL(b, specTTL, i.TTL)
	b = wire.AppendBool(b, specDown, i.OnExpiry == muster.ExpiryDown)
	b = wire.AppendUint(b, specRemoveAfter, uint64(max(i.RemoveAfter, 0)))
	for n := range i.Checks {
		b = appendMessage(b, specChecks, func(b []byte) []byte { return appendCheck(b, &i.Checks[n]) })
	}
	b = wire.AppendUint(b, specIncarnation, min(i.Incarnation, muster.MaxIncarnation))
	return wire.AppendUint(b, specLeaseID, uint64(i.LeaseID))
}

// readSpec reads what appendSpec writes. Where the spec says the same as like
// does (which may be nil), the values of like are used, and nothing is allocated.
func readSpec(i *muster.Instance, d decoder, like *muster.Instance) error {
	i.OnExpiry = muster.ExpiryRemove
	if like == nil {
		like = &muster.Instance{}
	}
	sameMeta := sharesMeta(d, like)
	if sameMeta {
		i.Meta = like.Meta
	}
	for d.Next() {
		switch d.Num {
		case specAddress:
			i.Address = d.strLike(like.Address)
		case specPort:
			i.Port = d.int()
		case specPorts:
			readPort(i, &d)
		case specVersion:
			i.Version = d.strLike(like.Version)
		case specZone:
			i.Zone = d.strLike(like.Zone)
		case specWeight:
			i.Weight = d.int()
		case specTags:
			tag := ""
			if n := len(i.Tags); n < len(like.Tags) {
				tag = like.Tags[n]
			}
			i.Tags = append(i.Tags, d.strLike(tag))
		case specMeta:
			if !sameMeta {
				readMeta(i, &d)
			}
		case specTTL:
			i.TTL = d.ttl()
		case specDown:
			if d.bool() {
				i.OnExpiry = muster.ExpiryDown
			}
		case specRemoveAfter:
			i.RemoveAfter = muster.Duration(d.span())
		case specChecks:
			i.Checks = append(i.Checks, readCheck(&d))
		case specIncarnation:
			i.Incarnation = d.uint(muster.MaxIncarnation)
		case specLeaseID:
			i.LeaseID = d.id()
		}
		if max(len(i.Ports), len(i.Tags), len(i.Meta), len(i.Checks)) > maxList {
			d.Fail(errField)
		}
	}
	return d.Err()
}

func readPort(i *muster.Instance, d *decoder) {
	var name string
	var port int
	in := d.message()
	for in.Next() {
		switch in.Num {
		case 1:
			name = in.str()
		case 2:
			port = in.int()
		}
	}
	d.nested(&in)
	if i.Ports == nil {
		i.Ports = make(map[string]int)
	}
	i.Ports[name] = port
}

func readMeta(i *muster.Instance, d *decoder) {
	name, value := d.pair()
	if i.Meta == nil {
		i.Meta = make(map[string]string)
	}
	i.Meta[string(name)] = string(value)
}

// pair reads a pair of metadata.
func (d *decoder) pair() (name, value []byte) {
	in := d.message()
	for in.Next() {
		switch in.Num {
		case 1:
			name = in.bytes(maxText)
		case 2:
			value = in.bytes(maxText)
		}
	}
	d.nested(&in)
	return name, value
}

// sharesMeta reports whether a spec has just the metadata that like has.
func sharesMeta(d decoder, like *muster.Instance) bool {
	if len(like.Meta) == 0 {
		return false
	}
	same := 0
	for d.Next() {
		if d.Num != specMeta {
			continue
		}
		name, value := d.pair()
		if v, ok := like.Meta[string(name)]; !ok || v != string(value) {
			return false
		}
		same++
	}
	return d.Err() == nil && same == len(like.Meta)
}

func appendCheck(b []byte, c *muster.Check) []byte {
	b = wire.AppendString(b, 1, c.Name)
	b = wire.AppendString(b, 2, string(c.Type))
	b = wire.AppendUint(b, 3, uint64(c.Port))
	b = wire.AppendString(b, 4, c.Method)
	b = wire.AppendString(b, 5, c.Path)
	b = wire.AppendString(b, 6, c.Expect)
	b = wire.AppendString(b, 7, c.Contains)
	b = wire.AppendBool(b, 8, c.TLS)
	b = wire.AppendString(b, 9, c.Service)
	b = wire.AppendUint(b, 10, uint64(max(c.Interval, 0)))
	b = wire.AppendUint(b, 11, uint64(max(c.Timeout, 0)))
	b = wire.AppendUint(b, 12, uint64(c.Fall))
	return wire.AppendUint(b, 13, uint64(c.Rise))
}

func readCheck(d *decoder) (c muster.Check) {
	in := d.message()
	for in.Next() {
		switch in.Num {
		case 1:
			c.Name = in.str()
		case 2:
			c.Type = muster.CheckType(in.str())
		case 3:
			c.Port = in.int()
		case 4:
			c.Method = in.str()
		case 5:
			c.Path = in.str()
		case 6:
			c.Expect = in.str()
		case 7:
			c.Contains = in.str()
		case 8:
			c.TLS = in.bool()
		case 9:
			c.Service = in.str()
		case 10:
			c.Interval = muster.Duration(in.span())
		case 11:
			c.Timeout = muster.Duration(in.span())
		case 12:
			c.Fall = in.int()
		case 13:
			c.Rise = in.int()
		}
	}
	d.nested(&in)
	return c
}

// share makes i use the values of like where they are equal: what the instances
// of a service have in common (version, zone, tags, metadata, checks) is then
// held once. Instances are immutable, so that nobody can tell.
func share(i, like *muster.Instance) {
	if like == nil {
		return
	}
	if i.Address == like.Address {
		i.Address = like.Address
	}
	if i.Version == like.Version {
		i.Version = like.Version
	}
	if i.Zone == like.Zone {
		i.Zone = like.Zone
	}
	if slices.Equal(i.Tags, like.Tags) {
		i.Tags = like.Tags
	}
	if maps.Equal(i.Ports, like.Ports) {
		i.Ports = like.Ports
	}
	if maps.Equal(i.Meta, like.Meta) {
		i.Meta = like.Meta
	}
	if slices.Equal(i.Checks, like.Checks) {
		i.Checks = like.Checks
	}
}
