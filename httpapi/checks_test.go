package httpapi_test

import (
	"testing"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/httpapi"
)

// TestCheckStatesAreIgnored: what the registry says of a check may be sent back to
// it, whatever it is, and is not read; a field that nobody knows is still refused.
func TestCheckStatesAreIgnored(t *testing.T) {
	var i muster.Instance
	body := `{"held_until":7,"checks":[{"type":"tcp","fall":2,"status":"up","cause":["x"],"output":{"a":1},"latency":3,"since":true,"contested":"yes"}]}`
	if err := httpapi.DecodeJSON([]byte(body), &i); err != nil {
		t.Fatal(err)
	}
	if c := i.Checks[0]; c.CheckState != (muster.CheckState{}) || c.Fall != 2 || !i.HeldUntil.IsZero() {
		t.Errorf("got %+v", i)
	}
	if err := httpapi.DecodeJSON([]byte(`{"checks":[{"type":"tcp","state":"up"}]}`), &i); err == nil {
		t.Error("an unknown field of a check is taken")
	}
}
