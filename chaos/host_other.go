//go:build !linux

package chaos

import (
	"errors"
	"os/exec"
)

var errLinux = errors.New("namespaces are Linux's")

func apart() error { return errLinux }

func networkOf(*host) (string, error) { return "", errLinux }

func dieWithUs(*exec.Cmd) {}

func smallDisk(string, int64) error { return errLinux }

func freeOn(string) (uint64, error) { return 0, errLinux }
