package logstore

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// orderEvery is how often a write that hangs by order looks whether it still shall.
const orderEvery = 10 * time.Millisecond

// obey does to a write what the file says, in builds with faults (room fault), where
// the disk of a whole process is made worse from outside: "delay 200ms" makes each
// write take longer, "hang" holds it until the file says something else or the store
// is closed, "fail" lets it fail with nothing written. No file and an empty one are
// no order.
func obey(file string, closed <-chan struct{}) error {
	for file != "" {
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading how bad the disk shall be: %w", err)
		}
		order, arg, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
		pause := orderEvery
		switch order {
		case "":
			return nil
		case "fail":
			return errors.New("the disk fails, by order")
		case "hang":
		case "delay":
			if pause, err = time.ParseDuration(arg); err != nil {
				return fmt.Errorf("reading how slow the disk shall be: %w", err)
			}
		default:
			return fmt.Errorf("%q is no order for a disk", order)
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-closed:
			t.Stop()
			return nil
		}
		if order == "delay" {
			return nil
		}
	}
	return nil
}
