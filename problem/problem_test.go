package problem_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/problem"
)

// codes reads every constant of type Code from the source of the root package, so
// that a new one cannot be forgotten in the table.
func codes(t *testing.T) []muster.Code {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../error.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var found []muster.Code
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); !ok || id.Name != "Code" {
			return true
		}
		text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, muster.Code(text))
		return true
	})
	if len(found) < 40 {
		t.Fatalf("found only %d codes in error.go", len(found))
	}
	return found
}

func TestEveryCodeHasAStatusAndATitle(t *testing.T) {
	titles := map[string]muster.Code{}
	for _, code := range codes(t) {
		status := problem.Status(code)
		if status == http.StatusInternalServerError && code != muster.CodeInternal {
			t.Errorf("%s has no row in the table", code)
		}
		title := problem.Title(code)
		if other, twice := titles[title]; twice {
			t.Errorf("%s and %s share the title %q", code, other, title)
		}
		titles[title] = code
	}
}

func TestStatuses(t *testing.T) {
	for code, want := range map[muster.Code]int{
		muster.CodeInvalidJSON: 400, muster.CodeUnauthenticated: 401, muster.CodeQuotaExceeded: 403,
		muster.CodeUnknownService: 404, muster.CodeMethodNotAllowed: 405, muster.CodeFenced: 409,
		muster.CodeCursorGone: 410, muster.CodePreconditionFailed: 412, muster.CodeBodyTooLarge: 413,
		muster.CodeURITooLong: 414, muster.CodeUnsupportedMediaType: 415, muster.CodeUnknownHost: 421,
		muster.CodeRateLimited: 429, muster.CodeHeadersTooLarge: 431, muster.CodeInternal: 500,
		muster.CodeNoLeader: 503, muster.CodeOutcomeUnknown: 504,
	} {
		if got := problem.Status(code); got != want {
			t.Errorf("status of %s = %d, want %d", code, got, want)
		}
	}
}

func TestBothWays(t *testing.T) {
	for _, code := range codes(t) {
		want := &muster.Error{
			Code: code, Detail: `a "detail" with <marks>`, Hint: "do this", Leader: "10.0.0.1:7400",
			RetryAfter: 1500 * time.Millisecond, Fields: []muster.FieldError{{Pointer: "/port", Detail: "is 0"}},
		}
		p := problem.New(fmt.Errorf("doing: %w", want.WithCause(errors.New("secret"))), "/v1/x", "r1")
		body := p.JSON()
		if strings.Contains(string(body), "secret") {
			t.Errorf("%s shows its cause: %s", code, body)
		}
		if got := problem.Decode(p.Status, body); !reflect.DeepEqual(got, want) {
			t.Errorf("%s came back as %#v, want %#v", code, got, want)
		}
		bare := &muster.Error{Code: code}
		if got := problem.Decode(p.Status, problem.New(bare, "", "").JSON()); !reflect.DeepEqual(got, bare) {
			t.Errorf("bare %s came back as %#v", code, got)
		}
	}
}

func TestBody(t *testing.T) {
	e := muster.Errorf(muster.CodeInvalidPort, "port 0 is not between 1 and 65535").WithHint("send 1 to 65535")
	e.Fields = []muster.FieldError{{Pointer: "/port", Detail: "port 0"}}
	got := string(problem.New(e, "/v1/services/web/instances/a", "req-1").JSON())
	want := `{"type":"urn:muster:problem:invalid_port","title":"Invalid port or weight","status":400,` +
		`"detail":"port 0 is not between 1 and 65535","instance":"/v1/services/web/instances/a","code":"invalid_port",` +
		`"request_id":"req-1","hint":"send 1 to 65535","errors":[{"pointer":"/port","detail":"port 0"}]}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestUncodedErrorsTellNothing(t *testing.T) {
	for _, err := range []error{errors.New("open /secret/path"), &muster.Error{Code: "made_up", Detail: "x"}} {
		p := problem.New(err, "", "r1")
		if p.Status != 500 || p.Code != muster.CodeInternal {
			t.Errorf("%v became %d %s, want 500 internal", err, p.Status, p.Code)
		}
		if strings.Contains(string(p.JSON()), "/secret/path") {
			t.Errorf("%v shows itself: %s", err, p.JSON())
		}
	}
	if e := problem.Of(errors.New("boom")); !strings.Contains(e.Error(), "boom") {
		t.Errorf("the log would not see the cause: %v", e)
	}
}

func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		code muster.Code
		wait time.Duration
		want string
	}{
		{muster.CodeNoLeader, 0, "1"},
		{muster.CodeRateLimited, 0, "1"},
		{muster.CodeOverloaded, time.Microsecond, "1"},
		{muster.CodeOverloaded, 1001 * time.Millisecond, "2"},
		{muster.CodeDiskFull, 30 * time.Second, "30"},
		{muster.CodeOutcomeUnknown, 0, ""},
		{muster.CodeInvalidJSON, 0, ""},
	} {
		p := problem.New((&muster.Error{Code: c.code}).WithRetryAfter(c.wait), "", "")
		if got := p.RetryAfter(); got != c.want {
			t.Errorf("Retry-After of %s after %s = %q, want %q", c.code, c.wait, got, c.want)
		}
	}
}

func TestDecodeForeignAnswers(t *testing.T) {
	for status, want := range map[int]muster.Code{
		400: muster.CodeMalformedRequest, 404: muster.CodeNotFound, 418: muster.CodeMalformedRequest,
		502: muster.CodeOutcomeUnknown, 503: muster.CodeOverloaded, 500: muster.CodeInternal, 599: muster.CodeInternal,
	} {
		for _, body := range []string{"", "<html>bad gateway</html>", "{}", "null", "[1]", `{"code":7}`} {
			if got := problem.Decode(status, []byte(body)); got.Code != want {
				t.Errorf("%d with body %q = %s, want %s", status, body, got.Code, want)
			}
		}
	}
	if got := problem.Decode(409, []byte(`{"code":"from_the_future","detail":"d"}`)); got.Code != "from_the_future" || got.Detail != "d" {
		t.Errorf("a code of a newer server came back as %v", got)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(400, []byte(`{"code":"invalid_json","errors":[{"pointer":"/a"}],"retry_after_ms":-1}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		e := problem.Decode(status, body)
		if e == nil || e.Code == "" || e.RetryAfter < 0 {
			t.Fatalf("Decode(%d, %q) = %v", status, body, e)
		}
	})
}
