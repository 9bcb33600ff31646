package node

import "golang.org/x/sys/unix"

// space is that of a file system, in bytes.
type space struct{ free, size uint64 }

// diskSpace asks the system for the space of the file system that dir is on. Free is
// what a user without privileges may still take.
func diskSpace(dir string) (space, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return space{}, err
	}
	block := uint64(fs.Bsize)
	return space{free: fs.Bavail * block, size: fs.Blocks * block}, nil
}
