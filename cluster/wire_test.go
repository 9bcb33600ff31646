package cluster

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMeta(t *testing.T) {
	m := meta{
		ClusterID: strings.Repeat("c", 32), PeerAddr: "10.0.0.1:7401", APIAddr: "10.0.0.1:7400", Name: "node-1", Zone: "eu-1a",
		Version: "1.2.3", Boot: 7, Expect: 3, Level: 2, VoterWanted: true, Leaving: true,
	}
	got, err := decodeMeta(m.encode(metaLimit))
	if err != nil || got != m {
		t.Errorf("read back %+v, %v, want %+v", got, err, m)
	}
	m.APIAddr = "api.example.com:80"
	if got, err := decodeMeta(m.encode(metaLimit)); err != nil || got != m {
		t.Errorf("read back %+v, %v, want %+v", got, err, m)
	}
}

func TestMetaFits(t *testing.T) {
	host := strings.Repeat("h", 253)
	m := meta{
		ClusterID: strings.Repeat("c", 32), PeerAddr: host + ":65535", APIAddr: host + ":65535", Name: strings.Repeat("é", 500),
		Zone: strings.Repeat("z", 500), Version: strings.Repeat("v", 500), Boot: 1 << 60, Expect: 1 << 60, VoterWanted: true,
	}
	for _, api := range []string{m.APIAddr, strings.Repeat("i", 253) + ":1"} {
		m.APIAddr = api
		b := m.encode(metaLimit)
		if len(b) == 0 || len(b) > metaLimit {
			t.Errorf("the metadata is %d bytes", len(b))
		}
		if got, err := decodeMeta(b); err != nil || got.PeerAddr != m.PeerAddr {
			t.Errorf("read back %+v, %v", got, err)
		}
	}
	m.PeerAddr, m.APIAddr = "a:1", "a:2"
	if b := m.encode(metaLimit); len(b) > metaRoom {
		t.Errorf("with short addresses the metadata is %d bytes, want at most %d", len(b), metaRoom)
	}
}

func FuzzMeta(f *testing.F) {
	m := meta{ClusterID: "c", PeerAddr: "a:1", APIAddr: "a:2", Name: "n", Zone: "z", Version: "v", Boot: 1, Expect: 3, HasState: true}
	f.Add(m.encode(metaLimit))
	f.Add([]byte{metaFormat, 0x12, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			return
		}
		again, err := decodeMeta(m.encode(metaLimit))
		if err != nil || again.PeerAddr != m.PeerAddr || again.Boot != m.Boot || again.HasState != m.HasState {
			t.Errorf("%+v became %+v, %v", m, again, err)
		}
	})
}

func TestCallsReadBack(t *testing.T) {
	segments := []segment{{time.Second, [][]byte{[]byte("a"), {}, []byte("c")}, false}, {0, [][]byte{[]byte("d")}, true}}
	if got, err := decodePropose(encodePropose(segments)); err != nil || !reflect.DeepEqual(got, segments) {
		t.Errorf("segments read back %v, %v", got, err)
	}
	outs := []outcome{{fate: fateApplied, result: []byte("r")}, {fate: fateApplied, result: []byte{}}, {fate: fateUnknown, detail: "why"}, {fate: fateOverloaded}}
	if got, redirect, err := decodeOutcomes(encodeOutcomes(outs)); err != nil || redirect != nil || !reflect.DeepEqual(got, outs) {
		t.Errorf("outcomes read back %v, %v, %v", got, redirect, err)
	}
	l := &notLeader{"id", "addr:1"}
	if _, got, err := decodeOutcomes(l.encode()); err != nil || *got != *l {
		t.Errorf("redirection reads back %v, %v", got, err)
	}
	a := &freshAnswer{term: 3, index: 9, age: time.Millisecond, leader: "l", api: "a:1", members: []memberState{{"m", 8, -1}, {"o", 9, 0}, {"p", 7, time.Second}}, behind: true}
	if got, err := decodeFresh(a.encode()); err != nil || !reflect.DeepEqual(got, a) {
		t.Errorf("freshness reads back %+v, %v", got, err)
	}
	s := nodeStatus{id: "i", clusterID: "c", gossip: "g:1", leader: *l, boot: 2, term: 3, applied: 4, expect: 5, lag: -1, hasState: true, low: true}
	if got, err := decodeStatus(s.encode()); err != nil || got != s {
		t.Errorf("status reads back %+v, %v", got, err)
	}
}

// TestProposeIsBounded: a call of many operations, or of many callers, is refused when
// the first is read that is too much.
func TestProposeIsBounded(t *testing.T) {
	one := [][]byte{[]byte("a")}
	for name, segments := range map[string][]segment{
		"an operation too many": {{ops: slices.Repeat(one, MaxEntryOps+1)}},
		"a caller too many":     slices.Repeat([]segment{{ops: one}}, MaxEntryOps+1),
		"a caller of nothing":   {{ops: one}, {}},
	} {
		if got, err := decodePropose(encodePropose(segments)); err == nil || len(got) > MaxEntryOps+1 {
			t.Errorf("%s: read %d callers, %v", name, len(got), err)
		}
	}
	if got, err := decodePropose(encodePropose(slices.Repeat([]segment{{ops: one}}, MaxEntryOps))); err != nil || len(got) != MaxEntryOps {
		t.Errorf("an entry's worth of callers: read %d, %v", len(got), err)
	}
}

func FuzzCalls(f *testing.F) {
	f.Add(encodePropose([]segment{{time.Second, [][]byte{[]byte("a")}, true}}))
	f.Add(encodeOutcomes([]outcome{{fate: fateApplied, result: []byte("r")}}))
	f.Add((&notLeader{"id", "addr:1"}).encode())
	f.Add((&freshAnswer{term: 1, index: 2, members: []memberState{{"m", 8, 0}}}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := decodePropose(b); err == nil {
			if again, err := decodePropose(encodePropose(s)); err != nil || len(again) != len(s) {
				t.Errorf("segments became %v, %v", again, err)
			}
		}
		decodeOutcomes(b)
		decodeStatus(b)
		if a, err := decodeFresh(b); err == nil {
			if again, err := decodeFresh(a.encode()); err != nil || again.index != a.index {
				t.Errorf("%+v became %+v, %v", a, again, err)
			}
		}
		redirection(b)
	})
}

func FuzzGossipPacket(f *testing.F) {
	f.Add([]byte{1, 2, 'i', 'd', 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		g := newGossip("self", "", nil, nil)
		g.NotifyMsg(b)
		select {
		case p := <-g.packets:
			if want := append(append([]byte{p.kind, byte(len(p.from))}, p.from...), p.body...); !bytes.Equal(b, want) {
				t.Errorf("%x was taken apart as %+v", b, p)
			}
		default:
		}
	})
}
