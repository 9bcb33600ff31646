package bench

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestRunGoesOn: a scenario that fails is a row that says so, the others go on, and the
// run is no success.
func TestRunGoesOn(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/cluster" {
			host := strings.TrimPrefix(r.Host, "http://")
			w.Write([]byte(`{"leader":"a","members":[{"id":"a","alive":true,"api_addr":"` + host + `"}]}`))
			return
		}
		if r.Method == "DELETE" { // the clean-up is not what is tried
			w.WriteHeader(http.StatusNoContent)
			return
		}
		http.Error(w, "broken", http.StatusInternalServerError)
	}))
	defer srv.Close()
	report, err := Run(t.Context(), Config{
		Addrs: []string{srv.URL}, Quick: true, Only: regexp.MustCompile("^(heartbeat/batch|failover|pick/10)$"),
		Command: func(args ...string) *exec.Cmd { return exec.Command("false") },
	})
	if err == nil || !strings.Contains(err.Error(), "heartbeat/batch") || !strings.Contains(err.Error(), "pick/10") {
		t.Errorf("the error is %v", err)
	}
	if report == nil || len(report.Results) != 3 {
		t.Fatalf("the report is %+v", report)
	}
	for n, failed := range []bool{true, true, false} {
		if r := report.Results[n]; failed != strings.Contains(r.Failed, "500") || failed == (r.Skipped != "") {
			t.Errorf("%+v", r)
		}
	}
}
