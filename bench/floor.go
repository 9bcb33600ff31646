package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"time"
)

// The kinds of floors: what is measured beside the registry to say how far it is
// from what the machine, Go and a library can do without it.
const (
	FloorHTTP = "http"
	FloorRaft = "raft"
)

// floorAddrs is what the process of a floor says when it is ready.
type floorAddrs struct {
	// Control takes orders and shows /metrics; Load is what is measured, if it is
	// measured from outside.
	Control string `json:"control"`
	Load    string `json:"load"`
}

// floor is such a process.
type floor struct {
	floorAddrs
	cmd   *exec.Cmd
	stdin io.Closer
}

func startFloor(command func(args ...string) *exec.Cmd, kind string) (*floor, error) {
	f := &floor{cmd: command("bench-floor", kind)}
	stdin, err := f.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe: %w", err)
	}
	stdout, err := f.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe: %w", err)
	}
	if err := f.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the floor: %w", err)
	}
	f.stdin = stdin
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &f.floorAddrs)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the floor did not say where it is: %w", err), f.stop())
	}
	return f, nil
}

// stop ends the process: it goes when nobody is left to give orders.
func (f *floor) stop() error {
	f.stdin.Close()
	killed := time.AfterFunc(10*time.Second, func() { _ = f.cmd.Process.Kill() })
	defer killed.Stop()
	if err := f.cmd.Wait(); err != nil {
		return fmt.Errorf("ending the floor: %w", err)
	}
	return nil
}

// canned is an answer that the floor of net/http gives to everybody.
type canned struct {
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"`
}

// answerOf takes the answer that a node gives, for the floor to give.
func (w *world) answerOf(ctx context.Context, method, url string) (canned, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return canned{}, fmt.Errorf("making a request: %w", err)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return canned{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %d: %.300s", url, resp.StatusCode, body)
	}
	header := resp.Header.Clone()
	header.Del("Date") // net/http adds it
	return canned{header, body}, err
}

// likeHTTP readies the floor of net/http to answer as a node answers a request, and
// returns the same load on it.
func (w *world) likeHTTP(ctx context.Context, method, url string, clients int) (Load, usage, error) {
	if w.floor == nil {
		var err error
		if w.floor, err = startFloor(w.cfg.Command, FloorHTTP); err != nil {
			return Load{}, nil, err
		}
	}
	answer, err := w.answerOf(ctx, method, url)
	if err != nil {
		return Load{}, nil, err
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return Load{}, nil, fmt.Errorf("encoding an answer: %w", err)
	}
	if _, err := send(ctx, w.client, "PUT", w.floor.Control+"/answer", string(text), 204); err != nil {
		return Load{}, nil, fmt.Errorf("readying the floor: %w", err)
	}
	target := w.floor.Load + "/"
	return Load{Clients: clients, Do: func(ctx context.Context, _, _ int) (int, error) {
		_, err := send(ctx, w.client, method, target, "", 200)
		return 1, err
	}}, meter{w.client, []string{w.floor.Control}}, nil
}
