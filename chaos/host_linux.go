package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// apart takes the calling thread into a network and a mount namespace of its own.
func apart() error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("making namespaces: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("parting the mounts: %w", err)
	}
	return nil
}

// networkOf is the path of the network namespace that the host is in.
func networkOf(h *host) (path string, err error) {
	err = h.do(func() error {
		path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		return nil
	})
	return path, err
}

// dieWithUs has the kernel kill the command when the thread that started it ends, so
// when the host or this whole process is gone.
func dieWithUs(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// smallDisk mounts a file system of that size, in memory, that only the calling
// thread's host sees.
func smallDisk(dir string, bytes int64) error {
	if err := unix.Mount("muster-chaos", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		return fmt.Errorf("mounting a small disk: %w", err)
	}
	return nil
}

// freeOn is how many bytes are free on the file system of dir.
func freeOn(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("looking at the free space: %w", err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}
