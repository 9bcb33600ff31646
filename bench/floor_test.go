package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// serve runs a floor in this process, as its hidden command does in one of its own.
func serve(t *testing.T, kind string) (*http.Client, floorAddrs) {
	t.Helper()
	in, give := io.Pipe()
	said, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- ServeFloor(t.Context(), kind, in, out) }()
	client := &http.Client{Transport: newTransport(nil)}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		give.Close()
		if err := <-ended; err != nil {
			t.Errorf("the floor ended with %v", err)
		}
	})
	line, err := bufio.NewReader(said).ReadBytes('\n')
	var addrs floorAddrs
	if err == nil {
		err = json.Unmarshal(line, &addrs)
	}
	if err != nil {
		t.Fatal(err)
	}
	return client, addrs
}

// TestFloorHTTP: the floor answers the same header and body that it was given.
func TestFloorHTTP(t *testing.T) {
	client, addrs := serve(t, FloorHTTP)
	text, err := json.Marshal(canned{http.Header{"Muster-Index": {"7"}, "Content-Type": {"application/json"}}, []byte(`{"a":1}`)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := send(t.Context(), client, "PUT", addrs.Control+"/answer", string(text), 204); err != nil {
		t.Fatal(err)
	}
	resp, err := client.Get(addrs.Load + "/v1/services/web")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || string(body) != `{"a":1}` || resp.Header.Get("Muster-Index") != "7" || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("the floor answered %v %q (%v)", resp.Header, body, err)
	}
	if u, err := usageOf(t.Context(), client, addrs.Control); err != nil || u.CPU <= 0 || u.Resident <= 0 {
		t.Errorf("it says it has used %+v (%v)", u, err)
	}
}

// TestFloorRaft: bare raft takes a load; a nonsensical order is refused.
func TestFloorRaft(t *testing.T) {
	client, addrs := serve(t, FloorRaft)
	s, u, err := measureRaft(t.Context(), client, &floor{floorAddrs: addrs}, raftOrder{4, 100 * time.Millisecond, 300})
	if err != nil || s.Ops == 0 || len(s.Took) != s.Ops || s.Elapsed < 100*time.Millisecond || u.Resident <= 0 {
		t.Errorf("got %+v, %+v, %v", s, u, err)
	}
	if _, err := send(t.Context(), client, "POST", addrs.Control+"/run", `{"clients":0}`, 400); err != nil {
		t.Error(err)
	}
}

func TestFloorUnknown(t *testing.T) {
	if err := ServeFloor(context.Background(), "wood", strings.NewReader(""), io.Discard); err == nil {
		t.Error("there is a floor of wood")
	}
}
