package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/muster-registry/muster/problem"
)

// abuse is bytes on a socket and what they must be answered: "400 invalid_name", or
// a status alone where it is no error.
type abuse struct {
	name string
	raw  []string // written one after the other
	want string
	// closes says that the connection must end with the answer.
	closes bool
	head   bool // the answer has no body
}

// rawRequest is a request with all it needs, and header lines of its own.
func rawRequest(method, target, body string, headers ...string) string {
	host := "Host: localhost\r\n"
	if slices.ContainsFunc(headers, func(h string) bool { return strings.HasPrefix(h, "Host:") }) {
		host = ""
	}
	lines := strings.Join(headers, "\r\n")
	if lines != "" {
		lines += "\r\n"
	}
	return fmt.Sprintf("%s %s HTTP/1.1\r\n%s%sContent-Length: %d\r\n\r\n%s", method, target, host, lines, len(body), body)
}

// asks is one case for every target.
func asks(method, want string, targets ...string) (cases []abuse) {
	for _, target := range targets {
		cases = append(cases, abuse{name: method + " " + target, raw: []string{rawRequest(method, target, "")}, want: want, head: method == "HEAD"})
	}
	return cases
}

// sends is one case for every body.
func sends(method, target, want string, bodies ...string) (cases []abuse) {
	for _, body := range bodies {
		cases = append(cases, abuse{name: method + " " + target + " " + body, raw: []string{rawRequest(method, target, body)}, want: want})
	}
	return cases
}

// registers is one registration for every field that is added to a good body.
func registers(want string, fields ...string) (cases []abuse) {
	for _, field := range fields {
		cases = append(cases, sends("PUT", abuseInstance, want, `{"address":"10.0.0.5","port":80,`+field+`}`)...)
	}
	return cases
}

// abuseAll are the rows of the contract in their order, see abusecases_test.go.
func abuseAll() []abuse {
	return slices.Concat(abuseNames(), abusePaths(), abuseJSON(), abuseFields(), abuseMedia(), abuseTimes(), abuseAddresses(), abuseMetadata(),
		abuseCursors(), abuseQueries(), abuseOperations(), abuseFraming(), abuseHeads(), abuseMethods(), abuseTaken())
}

// rssMargin is by how much the process may grow over all of it: the garbage of a
// few hundred requests, of which some are the largest there may be.
const rssMargin = 64 << 20

// TestAbuse sends a running node everything that must be refused, over raw sockets.
// Nothing of it may change what is registered, take memory, end the node, or write a
// line of the log.
func TestAbuse(t *testing.T) {
	p := newCluster(t, 1)[0]
	p.args = append(p.args, "--log-level", "debug", "--log-format", "json")
	p.start()
	p.waitReady("?require=leader")
	client := &http.Client{}
	defer client.CloseIdleConnections()
	status, seed, err := request(t.Context(), client, "PUT", p.url+abuseInstance, `{"address":"10.0.0.9","port":9,"ttl":"none"}`)
	if err != nil || status != 201 {
		t.Fatalf("%d %s %v", status, seed, err)
	}
	state := func() (content string, commit uint64) {
		t.Helper()
		_, view, err := request(t.Context(), client, "GET", p.url+"/v1/services/web", "")
		if err != nil {
			t.Fatal(err)
		}
		_, list, err := request(t.Context(), client, "GET", p.url+"/v1/services", "")
		if err != nil {
			t.Fatal(err)
		}
		_, events, err := request(t.Context(), client, "GET", p.url+"/v1/events", "")
		if err != nil {
			t.Fatal(err)
		}
		_, events, _ = strings.Cut(events, `"events":`) // before it stands how far the node is
		var c struct {
			CommitIndex uint64 `json:"commit_index"`
		}
		_, members, err := request(t.Context(), client, "GET", p.url+"/v1/cluster", "")
		if err != nil || json.Unmarshal([]byte(members), &c) != nil {
			t.Fatalf("%s %v", members, err)
		}
		return view + list + events, c.CommitIndex
	}
	cases := abuseAll()
	if len(cases) < 400 {
		t.Errorf("only %d cases", len(cases))
	}
	before, commit := state()
	rss := p.rss()
	for _, c := range cases {
		t.Run(clip(c.name), func(t *testing.T) {
			c.check(t, strings.TrimPrefix(p.url, "http://"))
			after, committed := state()
			if after != before {
				t.Errorf("the state was changed from %s to %s", before, after)
			}
			// What is refused for the sake of what is stored has been through the log.
			if committed != commit && !slices.Contains([]string{"404", "409", "412"}, c.want[:3]) {
				t.Errorf("the log went from %d to %d", commit, committed)
			}
			before, commit = after, committed
			if now := p.rss(); now > rss+rssMargin {
				t.Errorf("the process has grown from %d to %d MiB", rss>>20, now>>20)
			}
		})
	}
	t.Logf("%d cases; the process grew by %d KiB", len(cases), (p.rss()-rss)>>10)
	p.checkLog(t)
}

func clip(s string) string { return fmt.Sprintf("%.70q", s) }

// check sends the case and reads what it is answered.
func (c abuse) check(t *testing.T, addr string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for _, piece := range c.raw {
		if _, err := io.WriteString(conn, piece); err != nil {
			break // the node may hang up before it has read all of it
		}
	}
	method := "GET"
	if c.head {
		method = "HEAD"
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	got := strconv.Itoa(resp.StatusCode)
	if resp.StatusCode >= 400 && !c.head {
		var p problem.Problem
		if err := json.Unmarshal(body, &p); err != nil || resp.Header.Get("Content-Type") != problem.ContentType || p.Status != resp.StatusCode || p.RequestID == "" {
			t.Errorf("no whole problem: %v %s", resp.Header, body)
		}
		got += " " + string(p.Code)
	}
	if got != c.want {
		t.Errorf("answered %s, want %s: %.300s", got, c.want, body)
	}
	if resp.StatusCode == 405 && resp.Header.Get("Allow") == "" {
		t.Error("405 without Allow")
	}
	if resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("Muster-Request-Id") == "" || resp.Header.Get("Injected") != "" {
		t.Errorf("the headers are %v", resp.Header)
	}
	if c.closes {
		if !resp.Close {
			t.Error("the connection is not announced to close")
		}
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Error("the connection stays open")
		}
	}
}

// rss is the memory of the process in bytes; 0 where the system does not tell.
func (p *process) rss() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(syscall.Getpagesize())
}

// checkLog reads the log: a line each for what happened, and none of it the work of
// a caller.
func (p *process) checkLog(t *testing.T) {
	t.Helper()
	lines := 0
	for line := range strings.Lines(p.log.String()) {
		if !strings.HasPrefix(line, "{") {
			continue // the banner
		}
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Errorf("a line of the log cannot be read: %v %s", err, line)
		}
		if level := entry["level"]; level == "ERROR" || entry["injected"] != nil || entry["panic"] != nil {
			t.Errorf("logged: %s", line)
		}
		lines++
	}
	if lines < 400 {
		t.Errorf("the log has %d lines", lines)
	}
}

// TestManyWritersOfOne: 100 registrations of one instance at once all succeed and
// leave one of them, the last; of 50 that ask for the version they saw, one wins.
func TestManyWritersOfOne(t *testing.T) {
	p := newCluster(t, 1)[0]
	p.start()
	p.waitReady("?require=leader")
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	defer client.CloseIdleConnections()
	put := func(weight int, headers ...string) (status int, index uint64) {
		req, err := http.NewRequestWithContext(t.Context(), "PUT", p.url+abuseInstance, strings.NewReader(fmt.Sprintf(`{"address":"10.0.0.5","port":80,"weight":%d}`, weight)))
		if err != nil {
			t.Error(err)
			return 0, 0
		}
		for n := 0; n < len(headers); n += 2 {
			req.Header.Set(headers[n], headers[n+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Error(err)
			return 0, 0
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		index, _ = strconv.ParseUint(resp.Header.Get("Muster-Index"), 10, 64)
		return resp.StatusCode, index
	}
	together := func(count int, do func(n int) (int, uint64)) (statuses map[int]int, last uint64) {
		statuses = map[int]int{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for n := range count {
			wg.Go(func() {
				status, index := do(n)
				mu.Lock()
				defer mu.Unlock()
				statuses[status]++
				if status < 300 {
					last = max(last, index)
				}
			})
		}
		wg.Wait()
		return statuses, last
	}
	current := func() (modified uint64, etag string) {
		t.Helper()
		resp, err := client.Get(p.url + abuseInstance)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var i struct {
			ModifyIndex uint64 `json:"modify_index"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&i); err != nil {
			t.Fatal(err)
		}
		return i.ModifyIndex, resp.Header.Get("ETag")
	}

	statuses, last := together(100, func(n int) (int, uint64) { return put(n + 1) })
	modified, etag := current()
	if statuses[201] != 1 || statuses[200] != 99 || modified != last {
		t.Errorf("the answers are %v, the state is of %d, the last write of %d", statuses, modified, last)
	}
	statuses, last = together(50, func(n int) (int, uint64) { return put(1000+n, "If-Match", etag) })
	modified, _ = current()
	if statuses[200] != 1 || statuses[412] != 49 || modified != last {
		t.Errorf("with If-Match the answers are %v, the state is of %d, the last write of %d", statuses, modified, last)
	}
}
