package fsm

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"time"

	"github.com/muster-registry/muster"
)

// Backup is the state at one index. Its bytes are those of a snapshot, and equal
// states give equal bytes. It is immutable.
type Backup struct{ p *picture }

// Backup takes the state as it is now, in microseconds; writing it comes later and
// holds nobody up.
func (f *FSM) Backup() *Backup {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &Backup{f.st.take()}
}

// Index is the index of the last entry that is in the backup.
func (b *Backup) Index() uint64 { return muster.MakeIndex(b.p.epoch, b.p.applied) }

// WriteTo writes the backup.
func (b *Backup) WriteTo(w io.Writer) (int64, error) { return b.p.write(w) }

// Hash is the SHA-256 of what a Backup writes and the index it belongs to, for
// comparing nodes.
func (f *FSM) Hash() (sum [sha256.Size]byte, index uint64) {
	b, h := f.Backup(), sha256.New()
	_, _ = b.WriteTo(h) // a hash takes every byte
	return [sha256.Size]byte(h.Sum(nil)), b.Index()
}

// Summary is what a backup holds.
type Summary struct {
	ClusterID string `json:"cluster_id"`
	Index     uint64 `json:"index"`
	Epoch     uint64 `json:"epoch"`
	// Time is the stamp of the last entry.
	Time      time.Time `json:"time"`
	Services  int       `json:"services"`
	Instances int       `json:"instances"`
	Leases    int       `json:"leases"`
	Settings  int       `json:"settings"`
	Events    int       `json:"events"`
	Members   int       `json:"members"`
}

// BackupHead is how many bytes of a backup CheckBackupHead looks at.
const BackupHead uint64 = uint64(preambleSize)

// CheckBackupHead says why what begins so cannot be a backup that this build reads:
// enough to refuse a wrong file before anything is staged.
func CheckBackupHead(head []byte) error {
	_, err := newFrameReader(bytes.NewReader(head))
	return err
}

// Inspect reads a whole backup and says what is in it. The error says where it is
// not one: cut short, damaged, or of a later format.
func Inspect(r io.Reader) (Summary, error) {
	s, err := readSnapshot(r)
	if err != nil {
		return Summary{}, fmt.Errorf("reading the backup: %w", err)
	}
	sum := Summary{
		ClusterID: s.clusterID, Index: s.index(), Epoch: s.epoch, Time: fromMillis(s.stamp),
		Services: s.live, Leases: s.leases.len(), Settings: len(s.settings), Events: len(s.journal.latest()), Members: len(s.members.boots),
	}
	for _, n := range s.counts {
		sum.Instances += n
	}
	return sum, nil
}
