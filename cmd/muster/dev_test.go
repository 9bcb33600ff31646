package main

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// TestDevBesideAnother: where the port of any of its nodes is taken nothing runs, and
// people are told which flag of this verb helps.
func TestDevBesideAnother(t *testing.T) {
	first := devPort(t)
	for _, offset := range []int{0, 11} { // the first node's API port, the second's peer port
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+offset))
		if err != nil {
			t.Fatal(err)
		}
		code, out, errs := command(t, "dev", "--port", fmt.Sprint(first))
		if code != exitConfig || out != "" || !strings.Contains(errs, l.Addr().String()) || !strings.Contains(errs, "--port moves") {
			t.Errorf("port %d taken: exit %d\n%s%s", first+offset, code, out, errs)
		}
		l.Close()
	}
}
