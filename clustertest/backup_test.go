package clustertest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/clustertest"
	"github.com/muster-registry/muster/fsm"
	"github.com/muster-registry/muster/node"
)

// takeBackup reads a backup from m, checks its trailer, and returns it.
func takeBackup(t *testing.T, m *clustertest.Member) []byte {
	t.Helper()
	resp, err := http.Get(m.URL() + "/v1/cluster/snapshot?consistency=linearizable")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("taking a backup: %d %v", resp.StatusCode, err)
	}
	if sum := sha256.Sum256(b); resp.Trailer.Get("Muster-Sha256") != hex.EncodeToString(sum[:]) {
		t.Fatalf("the trailer says %q", resp.Trailer.Get("Muster-Sha256"))
	}
	return b
}

// TestBackupAndRestore: what was registered comes back in one step, in the cluster
// it was taken from and in another; indexes only rise, whoever waits is woken,
// leases live on by their owners' beats, and a backup that is damaged changes
// nothing.
func TestBackupAndRestore(t *testing.T) {
	c := clustertest.Start(t, 3)
	leader := c.Leader()
	follower := c.Followers(leader)[0]
	for n := range 3000 { // so that it takes several chunks
		if n%500 == 0 {
			var items []string
			for k := range 500 {
				items = append(items, fmt.Sprintf(`{"service":"bulk-%d","id":"i-%d","address":"10.0.0.5","port":80,"ttl":"none","meta":{"pad":"%s"}}`, n/100, n+k, strings.Repeat("x", 200)))
			}
			leader.MustDo("POST", "/v1/batch/register", `{"instances":[`+strings.Join(items, ",")+`]}`, 200)
		}
	}
	leader.MustDo("PUT", "/v1/services/web/instances/kept", `{"address":"10.0.0.6","port":80,"ttl":"5s"}`, 201)
	leader.MustDo("PUT", "/v1/services/web/settings", `{"strategy":"ewma"}`, 200)
	saved := takeBackup(t, follower)
	if len(saved) < 400<<10 {
		t.Fatalf("the backup is %d bytes", len(saved))
	}
	sum, err := fsm.Inspect(bytes.NewReader(saved))
	if err != nil || sum.Instances != 3001 || sum.Settings != 1 {
		t.Fatalf("the backup holds %+v, %v", sum, err)
	}

	// What comes after is undone.
	leader.MustDo("PUT", "/v1/services/later/instances/i", body, 201)
	leader.MustDo("DELETE", "/v1/services/web/settings", "", 204)
	resp, _, err := leader.Request("DELETE", "/v1/services/bulk-0/instances/i-0", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	before, err := strconv.ParseUint(resp.Header.Get("Muster-Index"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	woken := make(chan string, 1)
	go func() {
		_, text, _ := follower.Do("GET", fmt.Sprintf("/v1/services/web?wait=60s&index=%d", before), "")
		woken <- text
	}()
	damaged := bytes.Clone(saved)
	damaged[len(damaged)/2] ^= 1
	status, text, err := follower.Do("PUT", "/v1/cluster/snapshot", string(damaged))
	if err != nil || status != 400 {
		t.Errorf("restoring a damaged backup: %d %s %v", status, text, err)
	}
	status, text, err = follower.Do("PUT", "/v1/cluster/snapshot", "not a backup")
	if err != nil || status != 400 {
		t.Errorf("restoring nonsense: %d %s %v", status, text, err)
	}
	leader.MustDo("GET", "/v1/services/later", "", 200)

	c.Wait("the restore", func() bool { // 503 where the leader has changed in the middle
		resp, text, err = follower.Request("PUT", "/v1/cluster/snapshot?reason=undo", string(saved), nil)
		if err != nil || resp.StatusCode != 200 && resp.StatusCode != 503 {
			t.Fatalf("restoring: %d %s %v", resp.StatusCode, text, err)
		}
		return resp.StatusCode == 200
	})
	index, err := strconv.ParseUint(resp.Header.Get("Muster-Index"), 10, 64)
	if epoch, _ := muster.SplitIndex(index); err != nil || index <= before || epoch != 1 {
		t.Errorf("restored at %d, before it was %d", index, before)
	}
	if text := <-woken; !strings.Contains(text, "kept") || !strings.Contains(text, `"strategy":"ewma"`) {
		t.Errorf("whoever waited was answered %.300s", text)
	}
	for _, m := range c.Members {
		m.MustDo("GET", fmt.Sprintf("/v1/services/later?min_index=%d", index), "", 404)
		var v muster.View
		clustertest.MustDecode(t, m.MustDo("GET", "/v1/services/bulk-0", "", 200), &v)
		if v.Index != index || v.Find("i-0") == nil {
			t.Errorf("%s shows bulk-0 at %d", m.Name, v.Index)
		}
		if events := m.MustDo("GET", "/v1/events", "", 200); !strings.Contains(events, `"restored"`) || !strings.Contains(events, `"undo"`) {
			t.Errorf("the journal of %s does not show the restore", m.Name)
		}
	}
	leader.MustDo("PUT", "/v1/services/web/instances/kept/heartbeat", "", 200)
	c.CheckEqualStates()

	other := clustertest.Start(t, 1)
	other.Members[0].MustDo("PUT", "/v1/cluster/snapshot", string(saved), 200)
	other.Members[0].MustDo("GET", "/v1/services/bulk-5/instances/i-700", "", 200)
	other.Members[0].MustDo("PUT", "/v1/services/web/instances/kept/heartbeat", "", 200)
}

// TestBackupsByTheNodeItself: every so often, so many of them, each of them whole.
func TestBackupsByTheNodeItself(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "backups")
	c := clustertest.Start(t, 1, func(cfg *node.Config) {
		cfg.Backups = node.Backups{Dir: dir, Interval: time.Second, Keep: 2}
	})
	c.Members[0].MustDo("PUT", "/v1/services/web/instances/i", body, 201)
	first := ""
	c.Wait("the first to go when a third comes", func() bool {
		names, err := filepath.Glob(filepath.Join(dir, "*.snapshot"))
		if err != nil || len(names) > 3 {
			t.Fatal(names, err)
		}
		if first == "" && len(names) > 0 {
			first = names[0]
			if err := os.WriteFile(first+".1.part", nil, 0o600); err != nil { // of a crash
				t.Fatal(err)
			}
		}
		_, err = os.Stat(first)
		return first != "" && len(names) == 2 && os.IsNotExist(err)
	})
	if _, err := os.Stat(first + ".1.part"); !os.IsNotExist(err) {
		t.Errorf("what a crash left is still there: %v", err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".part") {
			continue // being written
		}
		f, err := os.Open(name)
		if os.IsNotExist(err) {
			continue // one too many by now
		}
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", name, info.Mode(), err)
		}
		if sum, err := fsm.Inspect(f); err != nil || sum.Instances != 1 {
			t.Errorf("%s holds %+v, %v", name, sum, err)
		}
		f.Close()
	}
}
