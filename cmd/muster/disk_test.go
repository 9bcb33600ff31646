//go:build linux

package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// tmpfs mounts a small file system, or skips the test where that cannot be done.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("muster-test", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
	})
	return dir
}

// fill leaves so many bytes of a file system free; free gives them back.
func fill(t *testing.T, dir string, leave uint64) (free func()) {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, st.Bavail*uint64(st.Bsize)-leave), 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(ballast); err != nil {
			t.Error(err)
		}
	}
}

// TestDiskNearlyFull runs a node on a disk of 64 MiB that others fill: it refuses
// writes and answers reads until there is room again, all without a restart. Told not
// to look, it stops at the end of the disk with exit code 74, and comes back with all
// it has acknowledged once there is room.
func TestDiskNearlyFull(t *testing.T) {
	disk := tmpfs(t, "64m")
	p := newCluster(t, 1)[0]
	for n, arg := range p.args {
		if arg == "--data-dir" {
			p.args[n+1] = filepath.Join(disk, "data")
		}
	}
	p.start()
	p.waitReady("?require=leader")
	client := &http.Client{}
	defer client.CloseIdleConnections()
	put := func(body string) (int, string) {
		status, text, err := request(t.Context(), client, "PUT", p.url+abuseInstance, body)
		if err != nil {
			return 0, err.Error()
		}
		return status, text
	}
	wait := func(what string, want int, part string) {
		t.Helper()
		waitFor(t, what, func() bool {
			status, text := put(abuseBody)
			return status == want && strings.Contains(text, part)
		})
	}
	wait("the first write", 201, "")

	empty := fill(t, disk, 4<<20)
	wait("writes to be refused", 503, `"disk_full"`)
	status, text, err := request(t.Context(), client, "GET", p.url+abuseInstance, "")
	if err != nil || status != 200 {
		t.Errorf("reading from a full disk: %d %s %v", status, text, err)
	}
	_, text, err = request(t.Context(), client, "GET", p.url+"/metrics", "")
	if err != nil || !strings.Contains(text, "muster_cluster_disk_low 1\n") || !strings.Contains(text, "muster_node_disk_free_bytes 4") {
		t.Errorf("the metrics do not tell: %v", err)
	}
	empty()
	wait("writes to go on", 200, "")

	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	p.args = append(p.args, "--min-free-percent", "0")
	p.start()
	p.waitReady("?require=leader")
	empty = fill(t, disk, 0)
	padding := strings.Repeat("x", 1000)
	waitFor(t, "the disk to end", func() bool {
		put(`{"address":"10.0.0.5","port":80,"version":"` + padding[:100] + `","meta":{"a":"` + padding + `","b":"` + padding + `"}}`)
		return !p.alive()
	})
	if code := p.wait(); code != 74 {
		t.Errorf("exit code %d, want 74", code)
	}
	empty()
	p.start()
	p.waitReady("?require=leader")
	wait("writes after the end of the disk", 200, "")
}
