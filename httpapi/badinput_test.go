package httpapi_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/httpapi"
	"github.com/muster-registry/muster/problem"
)

// badInput is one request that is refused.
type badInput struct {
	name    string
	method  string
	target  string // as it stands in the request line
	header  string // "Name: value" lines
	body    string
	status  int
	code    muster.Code
	pointer string // of the first field error; "" for any
}

const (
	inst    = "/v1/services/web/instances/web-1"
	service = "/v1/services/web"
)

// put is a registration with one field of the body changed.
func put(field string, code muster.Code, pointer string) badInput {
	return badInput{
		name: "body " + field, method: "PUT", target: inst, body: `{"address":"10.0.0.5","port":80,` + field + `}`,
		status: problem.Status(code), code: code, pointer: pointer,
	}
}

// bare is a registration whose whole body is given.
func bare(body string, code muster.Code) badInput {
	return badInput{name: "body " + clipped(body), method: "PUT", target: inst, body: body, status: problem.Status(code), code: code}
}

func ask(method, target string, code muster.Code) badInput {
	return badInput{name: method + " " + clipped(target), method: method, target: target, status: problem.Status(code), code: code}
}

func with(b badInput, header string) badInput {
	b.name += " with " + clipped(header)
	b.header = header
	return b
}

func clipped(s string) string { return fmt.Sprintf("%.60q", s) }

const okBody = `{"address":"10.0.0.5","port":80}`

func badInputs() []badInput {
	return slices.Concat(badTexts(), badFields(), badHeaders(), badPaths(), badQueries(), badPicks(), badOthers(okBody))
}

// badTexts are bodies that are no JSON object, or not one alone.
func badTexts() []badInput {
	const ok = okBody
	return []badInput{
		bare(``, muster.CodeInvalidJSON), bare(` `, muster.CodeInvalidJSON), bare(`null`, muster.CodeInvalidJSON),
		bare(`[]`, muster.CodeInvalidJSON), bare(`"x"`, muster.CodeInvalidJSON), bare(`{`, muster.CodeInvalidJSON),
		bare(`{"address"`, muster.CodeInvalidJSON), bare(`{"address":}`, muster.CodeInvalidJSON), bare(`{address:1}`, muster.CodeInvalidJSON),
		bare(`{"address":"10.0.0.5",}`, muster.CodeInvalidJSON), bare(`{'address':1}`, muster.CodeInvalidJSON),
		bare(ok+`{}`, muster.CodeInvalidJSON), bare(ok+`x`, muster.CodeInvalidJSON), bare(ok+"\x00", muster.CodeInvalidJSON),
		bare("\ufeff"+ok, muster.CodeInvalidJSON), bare(`{"address":"10.0.0.5" "port":80}`, muster.CodeInvalidJSON),
		bare("{\"address\":\"\xff\xfe\",\"port\":80}", muster.CodeInvalidJSON), bare("{\"address\":\"a\nb\"}", muster.CodeInvalidJSON),
		bare(`{"address":"\ud800"}`, muster.CodeInvalidJSON), bare(`{"address":"\udc00\ud800"}`, muster.CodeInvalidJSON),
		bare(`{"address":"\x41"}`, muster.CodeInvalidJSON), bare(`{"address":"\u00g0"}`, muster.CodeInvalidJSON),
		bare(`{"port":NaN}`, muster.CodeInvalidJSON), bare(`{"port":Infinity}`, muster.CodeInvalidJSON), bare(`{"port":+80}`, muster.CodeInvalidJSON),
		bare(`{"port":080}`, muster.CodeInvalidJSON), bare(`{"port":.5}`, muster.CodeInvalidJSON), bare(`{"port":1.}`, muster.CodeInvalidJSON),
		bare(`{"port":0x50}`, muster.CodeInvalidJSON), bare(`{"port":-}`, muster.CodeInvalidJSON), bare(`{"port":1e}`, muster.CodeInvalidJSON),
		bare(`{"address":True}`, muster.CodeInvalidJSON), bare(`{"tags":["a",]}`, muster.CodeInvalidJSON), bare(`{"tags":[,]}`, muster.CodeInvalidJSON),
		bare(`{"tags":["a" "b"]}`, muster.CodeInvalidJSON), bare(`{/*c*/"port":80}`, muster.CodeInvalidJSON),
		bare(`{"override":`+strings.Repeat("[", 17)+strings.Repeat("]", 17)+`}`, muster.CodeInvalidJSON),
		bare(strings.Repeat(`{"override":`, 5000), muster.CodeInvalidJSON), bare(strings.Repeat("[", 60000), muster.CodeInvalidJSON),
		bare(`{"address":"`+strings.Repeat("a", 70000)+`"}`, muster.CodeBodyTooLarge),
	}
}

// badFields are bodies with a field that is wrong.
func badFields() []badInput {
	long := strings.Repeat("a", 200)
	cases := []badInput{
		// Names of fields.
		put(`"prot":80`, muster.CodeUnknownField, "/prot"), put(`"Port":80`, muster.CodeUnknownField, "/Port"),
		put(`"PORT":80`, muster.CodeUnknownField, "/PORT"), put(`"po\u0072t":81`, muster.CodeDuplicateField, "/port"),
		put(`"port":81`, muster.CodeDuplicateField, "/port"), put(`"meta":{"a":"1","a":"2"}`, muster.CodeDuplicateField, "/meta/a"),
		put(`"status":"up","status":"up"`, muster.CodeDuplicateField, "/status"), put(`"override":{"a":1,"a":2}`, muster.CodeDuplicateField, "/override"),
		put(`"override":{"x":[{"a":1,"a":2}]}`, muster.CodeDuplicateField, "/override"), put(`"place":3`, muster.CodeUnknownField, "/place"),
		put(`"":3`, muster.CodeUnknownField, "/"), put(`"a/b~c":3`, muster.CodeUnknownField, "/a~1b~0c"),
		put(`"checks":[{"type":"tcp","Interval":"5s"}]`, muster.CodeUnknownField, "/checks/0/Interval"),
		put(`"`+long+`":1`, muster.CodeUnknownField, ""),

		// Kinds of values.
		put(`"ttl":10`, muster.CodeTTLOutOfRange, "/ttl"), put(`"ttl":1e400`, muster.CodeTTLOutOfRange, "/ttl"), put(`"ttl":"10"`, muster.CodeTTLOutOfRange, "/ttl"),
		put(`"ttl":"0s"`, muster.CodeTTLOutOfRange, "/ttl"), put(`"ttl":"-1s"`, muster.CodeTTLOutOfRange, "/ttl"), put(`"ttl":"999ms"`, muster.CodeTTLOutOfRange, "/ttl"),
		put(`"ttl":"24h1s"`, muster.CodeTTLOutOfRange, "/ttl"), put(`"ttl":""`, muster.CodeTTLOutOfRange, "/ttl"), put(`"ttl":{"s":1}`, muster.CodeTTLOutOfRange, "/ttl"),
		put(`"ttl":"NaN"`, muster.CodeTTLOutOfRange, "/ttl"), put(`"ttl":true`, muster.CodeTTLOutOfRange, "/ttl"),
		put(`"ports":{"a":0}`, muster.CodeInvalidPort, "/ports/a"), put(`"ports":{"a":"1"}`, muster.CodeInvalidPort, "/ports/a"), put(`"ports":{"a":null}`, muster.CodeInvalidPort, "/ports/a"),
		put(`"ports":[80]`, muster.CodeInvalidPort, "/ports"), put(`"weight":-1`, muster.CodeInvalidPort, "/weight"), put(`"weight":65536`, muster.CodeInvalidPort, "/weight"),
		put(`"weight":"1"`, muster.CodeInvalidPort, "/weight"), put(`"weight":1.5`, muster.CodeInvalidPort, "/weight"),
		put(`"incarnation":-1`, muster.CodeInvalidIndex, "/incarnation"), put(`"incarnation":"7"`, muster.CodeInvalidIndex, "/incarnation"),
		put(`"incarnation":9007199254740992`, muster.CodeInvalidIndex, "/incarnation"), put(`"incarnation":99999999999999999999`, muster.CodeInvalidIndex, "/incarnation"),
		put(`"tags":"a"`, muster.CodeInvalidJSON, "/tags"), put(`"tags":[1]`, muster.CodeInvalidJSON, "/tags/0"), put(`"tags":["a",null]`, muster.CodeInvalidJSON, "/tags/1"),
		put(`"meta":{"a":1}`, muster.CodeInvalidJSON, "/meta/a"), put(`"meta":[]`, muster.CodeInvalidJSON, "/meta"), put(`"meta":{"":"x"}`, muster.CodeInvalidName, ""),
		put(`"zone":7`, muster.CodeInvalidJSON, "/zone"), put(`"on_expiry":"explode"`, muster.CodeConflictingField, "/on_expiry"),
		put(`"remove_after":"1m"`, muster.CodeConflictingField, "/remove_after"), put(`"remove_after":60`, muster.CodeInvalidDuration, "/remove_after"),
		put(`"checks":{}`, muster.CodeInvalidCheck, "/checks"), put(`"checks":[null]`, muster.CodeInvalidCheck, "/checks/0"), put(`"checks":["tcp"]`, muster.CodeInvalidCheck, "/checks/0"),
		put(`"checks":[{"type":"exec"}]`, muster.CodeInvalidCheck, "/checks/0"), put(`"checks":[{"type":"tcp","fall":"3"}]`, muster.CodeInvalidCheck, "/checks/0/fall"),
		put(`"checks":[{"type":"tcp","interval":5}]`, muster.CodeInvalidDuration, "/checks/0/interval"), put(`"checks":[{"type":"tcp","tls":1}]`, muster.CodeInvalidCheck, "/checks/0/tls"),
		put(`"lease_id":"x"`, muster.CodeUnknownLease, "/lease_id"), put(`"lease_id":42`, muster.CodeInvalidJSON, "/lease_id"),
		put(`"version":"a\nb"`, muster.CodeInvalidName, "/version"), put(`"tags":["a\u0000b"]`, muster.CodeInvalidName, "/tags/0"), put(`"meta":{"a":"x\r\ny"}`, muster.CodeInvalidName, ""),
		put(`"tags":["`+long+`"]`, muster.CodeMetadataTooLarge, "/tags/0"), put(`"meta":{"a":"`+strings.Repeat("v", 1025)+`"}`, muster.CodeMetadataTooLarge, ""),
		put(`"namespace":"other"`, muster.CodeConflictingField, "/namespace"), put(`"service":"api"`, muster.CodeConflictingField, "/service"),
		put(`"id":"web-2"`, muster.CodeConflictingField, "/id"), put(`"id":"WEB-1"`, muster.CodeConflictingField, "/id"), put(`"service":7`, muster.CodeInvalidName, "/service"),
		bare(`{"address":"10.0.0.5"}`, muster.CodeInvalidPort), bare(`{"port":80}`, muster.CodeInvalidAddress),
	}
	for _, port := range []string{"0", "-1", "65536", "80.5", `"80"`, "1e2", "true", "[]", "99999999999999999999", "null"} {
		cases = append(cases, bare(`{"address":"10.0.0.5","port":`+port+`}`, muster.CodeInvalidPort))
	}
	for _, address := range []string{`"::1%eth0"`, `"0.0.0.0"`, `"::"`, `"224.0.0.1"`, `"ff02::1"`, `"010.0.0.1"`, `"[::1]:80"`, `"10.0.0.5:80"`, `"u@h"`, `""`, `7`, `"a b"`, `"-a"`, `"` + strings.Repeat("a.", 200) + `a"`} {
		cases = append(cases, bare(`{"port":80,"address":`+address+`}`, muster.CodeInvalidAddress))
	}
	return cases
}

func badHeaders() []badInput {
	var cases []badInput
	valid := badInput{method: "PUT", target: inst, body: okBody, status: 415, code: muster.CodeUnsupportedMediaType, name: "media"}
	condition := badInput{method: "PUT", target: inst, body: okBody, status: 400, code: muster.CodeInvalidIndex, name: "condition"}
	for _, h := range []string{
		"Content-Type: text/plain", "Content-Type: application/xml", "Content-Type: application/json; charset=latin1", "Content-Type: ;",
		"Content-Type: multipart/form-data; boundary=x", "Content-Type: application/json\nContent-Type: text/plain", "Content-Type: application/jsonx",
		"Content-Encoding: gzip", "Content-Encoding: identity, gzip", "Content-Encoding: br",
	} {
		cases = append(cases, with(valid, h))
	}
	for _, h := range []string{
		"If-Match: 1-0", `If-Match: "1-0`, `If-Match: "x"`, `If-Match: ""`, `If-Match: *`, `If-Match: "0"`, `If-Match: "1-0", "2-0"`, `If-Match: W/"1-0"`,
		"If-Match: \"1-0\"\nIf-Match: \"1-0\"", `If-Match: "1-2048"`, `If-Match: "99999999999999999999-0"`, `If-None-Match: "1-0"`, "If-None-Match: *\nIf-None-Match: *",
	} {
		cases = append(cases, with(condition, h))
	}
	both := condition
	both.code = muster.CodeConflictingField
	return append(cases, with(both, "If-Match: \"1-0\"\nIf-None-Match: *"))
}

func badPaths() []badInput {
	var cases []badInput
	for _, path := range []string{
		"/v1//services", "//v1/services", "/v1/services//web", "/v1/services/web//", "/v1/./services", "/v1/../v1/services", "/v1/services/..",
		"/v1/services/.", "/v1/services/web/../api", "/v1/services/%2e%2e", "/v1/services/%2E", "/v1/services/a%2eb", "/v1/services/a%2Fb",
		"/v1/services/a%2fb", "/v1/services/a%5Cb", "/v1/services/a%5cb", `/v1/services/a\b`, "/v1/services/a%00b", "/v1/services/a%0d%0ab",
		"/v1/services/a%0Ab", "/v1/services/a%7fb", "/v1/services/a%ff", "*", "/%2e%2e/%2e%2e/etc/passwd", "/v1/services/web/instances/..%2f..%2f",
	} {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			cases = append(cases, ask(method, path, muster.CodeInvalidPath))
		}
	}
	for _, name := range []string{
		"we%20b", "-web", "web-", ".web", "web.", "w%C3%A9b", "web%3B", "we,b", "we'b", "<script>", "%F0%9F%92%A5", strings.Repeat("a", 129), "we%25b",
	} {
		cases = append(cases, ask("GET", "/v1/services/"+name, muster.CodeInvalidName), ask("DELETE", "/v1/services/web/instances/"+name, muster.CodeInvalidName),
			ask("GET", service+"?namespace="+name, muster.CodeInvalidName))
	}
	for _, path := range []string{"/", "/v1", "/v1/", "/v1/services/", "/v2/services", "/v1/services/web/", "/v1/service", "/statusfoo", "/index.html", "/favicon.ico", "/debug/pprof/", "/V1/services", "/v1/services/web/instances/web-1/x"} {
		cases = append(cases, ask("GET", path, muster.CodeNotFound), ask("POST", path, muster.CodeNotFound))
	}
	for _, method := range []string{"POST", "PATCH", "TRACE", "PROPFIND", "get", "X"} {
		cases = append(cases, ask(method, inst, muster.CodeMethodNotAllowed))
	}
	cases = append(cases, ask("DELETE", "/v1/services", muster.CodeMethodNotAllowed), ask("POST", "/metrics", muster.CodeMethodNotAllowed), ask("PUT", "/v1/cluster", muster.CodeMethodNotAllowed),
		ask("GET", "/v1/services/"+strings.Repeat("a", 9000), muster.CodeURITooLong), ask("GET", service+"?filter="+strings.Repeat("a", 9000), muster.CodeURITooLong))
	return cases
}

func badQueries() []badInput {
	var cases []badInput
	for code, queries := range map[muster.Code][]string{
		muster.CodeUnknownParameter: {
			"x=1", "Index=1", "index%20=1", "stauts=up", "tag%5B%5D=a", "meta=a", "Meta.a=b", "service=a", "limit=1", "reason=x", "consistency=strong",
			"consistency=", "zone=%zz", "zone=%", "%zz=a", "zone=a%00", "zone=a%0d%0aSet-Cookie:x", "zone=%ff", "zone=a;b", ";", "=", "filter=a%7f", "a&b", "prefix=a",
		},
		muster.CodeDuplicateField: {"index=1&index=2", "status=up&status=up", "zone=a&zone=a", "meta.a=1&meta.a=1", "namespace=a&namespace=b", "wait=1s&wait=1s", "z%6Fne=a&zone=a"},
		muster.CodeInvalidIndex: {
			"index=-1", "index=x", "index=", "index=1.5", "index=18446744073709551616", "index=9007199254740992", "index=+1", "index=%201", "index=0x10", "min_index=-1", "min_index=x",
		},
		muster.CodeInvalidDuration: {
			"index=1&wait=-1s", "wait=abc", "wait=", "wait=10", "wait=1e3s", "wait=NaN", "wait=9999999999h", "timeout=0s", "timeout=-1s", "timeout=x", "max_stale=0s", "max_stale=-5s", "max_stale=5",
		},
		muster.CodeInvalidFilter: {"status=UP", "status=bogus", "status=", "routable=yes", "routable=", "routable=TRUE", "zone=", "version=", "tag=", "filter="},
		muster.CodeInvalidName:   {"namespace=a%20b", "namespace=%2e%2e", "namespace=-", "namespace=" + strings.Repeat("n", 129)},
		muster.CodeCursorGone:    {"index=5", "index=9007199254740991", "index=1&cluster=other", "cluster=other"},
	} {
		for _, q := range queries {
			cases = append(cases, ask("GET", service+"?"+q, code))
		}
	}
	return append(cases,
		ask("DELETE", inst+"?incarnation=0", muster.CodeInvalidIndex), ask("DELETE", inst+"?incarnation=-1", muster.CodeInvalidIndex), ask("DELETE", inst+"?incarnation=x", muster.CodeInvalidIndex),
		ask("DELETE", inst+"?index=1", muster.CodeUnknownParameter), ask("DELETE", inst+"?reason="+strings.Repeat("r", 257), muster.CodeInvalidName),
		ask("DELETE", inst+"?reason=a%0ab", muster.CodeUnknownParameter), ask("DELETE", inst+"?reason=a%E2%80%A8b", muster.CodeInvalidName), ask("DELETE", inst+"?timeout=never", muster.CodeInvalidDuration),
		ask("GET", "/v1/events?limit=0", muster.CodeUnknownParameter), ask("GET", "/v1/events?limit=1001", muster.CodeUnknownParameter), ask("GET", "/v1/events?since=-1", muster.CodeInvalidIndex),
		ask("GET", "/v1/limits?x", muster.CodeUnknownParameter), ask("GET", "/metrics?x=1", muster.CodeUnknownParameter), ask("GET", "/livez?verbose", muster.CodeUnknownParameter),
		ask("GET", "/readyz?verbose=maybe", muster.CodeUnknownParameter), ask("GET", "/readyz?require=", muster.CodeUnknownParameter), ask("GET", "/v1/cluster?namespace=a", muster.CodeUnknownParameter),
	)
}

// badPicks are what is refused of picks and of what became of them.
func badPicks() []badInput {
	var cases []badInput
	for code, queries := range map[muster.Code][]string{
		muster.CodeUnknownParameter: {"n=0", "n=101", "n=-1", "n=x", "n=", "n=1.5", "stratgy=random", "index=1", "wait=1s", "ticket=1", "view=balancer"},
		muster.CodeInvalidStrategy:  {"strategy=", "strategy=RANDOM", "strategy=fastest", "strategy=rendezvous", "strategy=bounded_hash&key=", "strategy=consistent_hash"},
		muster.CodeInvalidFilter:    {"zone=prefer:", "zone=", "status=UP", "routable=2"},
		muster.CodeDuplicateField:   {"strategy=random&strategy=random", "key=a&key=b", "zone=a&zone=prefer:b", "n=1&n=1"},
		muster.CodeInvalidIndex:     {"min_index=-1"}, muster.CodeInvalidDuration: {"max_stale=5", "timeout=x"},
		muster.CodeNoInstance: {"zone=nowhere", "tag=none", "status=down"},
	} {
		for _, q := range queries {
			cases = append(cases, ask("GET", service+"/pick?"+q, code), ask("POST", service+"/pick?"+q, code))
		}
	}
	for _, ttl := range []string{"", "0s", "-1s", "30", "10m1s", "9999h", "x"} {
		cases = append(cases, ask("POST", service+"/pick?ticket_ttl="+ttl, muster.CodeInvalidDuration))
	}
	report := func(target, body string, code muster.Code, pointer string) {
		cases = append(cases, badInput{name: "POST " + target + clipped(body), method: "POST", target: target, body: body, status: problem.Status(code), code: code, pointer: pointer})
	}
	const ticket, outcomes = "/v1/picks/node-1.X", inst + "/outcomes"
	report(ticket, `{}`, muster.CodeConflictingField, "/outcome")
	report(ticket, `{"outcome":"Success"}`, muster.CodeConflictingField, "/outcome")
	report(ticket, `{"outcome":true}`, muster.CodeInvalidJSON, "/outcome")
	report(ticket, `{"outcome":"success","latency":12}`, muster.CodeInvalidDuration, "/latency")
	report(ticket, `{"outcome":"success","latency":"-1ms"}`, muster.CodeInvalidDuration, "/latency")
	report(ticket, `{"outcome":"success","took":"1ms"}`, muster.CodeUnknownField, "/took")
	report(ticket, `{"outcome":"success"}`, muster.CodeUnknownTicket, "")
	report("/v1/picks/x", `{"outcome":"success"}`, muster.CodeUnknownTicket, "")
	report(outcomes, `{}`, muster.CodeConflictingField, "")
	report(outcomes, `{"successes":-1}`, muster.CodeInvalidJSON, "/successes")
	report(outcomes, `{"successes":1.5}`, muster.CodeInvalidJSON, "/successes")
	report(outcomes, `{"failures":"1"}`, muster.CodeInvalidJSON, "/failures")
	report(outcomes, `{"failures":1000001}`, muster.CodeConflictingField, "")
	report(outcomes, `{"successes":9223372036854775808,"failures":9223372036854775808}`, muster.CodeConflictingField, "")
	report(outcomes, `{"failures":1,"latency":"fast"}`, muster.CodeInvalidDuration, "/latency")
	report(outcomes+"?view=balancer", `{"failures":1}`, muster.CodeUnknownParameter, "?view")
	report(service+"/instances/nobody/outcomes", `{"failures":1}`, muster.CodeUnknownInstance, "")
	report("/v1/services/nothing/instances/x/outcomes", `{"failures":1}`, muster.CodeUnknownService, "")
	for _, q := range []string{"view=balancer&zone=a", "view=balancer&index=1", "view=balancer&wait=1s", "view=balancer&cluster=cluster-1"} {
		cases = append(cases, ask("GET", service+"?"+q, muster.CodeConflictingField))
	}
	return append(cases,
		ask("GET", service+"?view=", muster.CodeUnknownParameter), ask("GET", service+"?view=people", muster.CodeUnknownParameter),
		ask("GET", "/v1/services/nothing/pick", muster.CodeUnknownService), ask("GET", "/v1/services/nothing?view=balancer", muster.CodeUnknownService),
		ask("DELETE", service+"/pick", muster.CodeMethodNotAllowed), ask("GET", "/v1/picks/x", muster.CodeMethodNotAllowed), ask("GET", inst+"/outcomes", muster.CodeMethodNotAllowed),
	)
}

func badOthers(ok string) []badInput {
	post := func(target, body string, code muster.Code, pointer string) badInput {
		return badInput{name: "POST " + target + clipped(body), method: "POST", target: target, body: body, status: problem.Status(code), code: code, pointer: pointer}
	}
	batch := "/v1/batch/register"
	override := func(body string, code muster.Code, pointer string) badInput {
		return badInput{name: "override " + body, method: "PUT", target: inst + "/override", body: body, status: problem.Status(code), code: code, pointer: pointer}
	}
	origin := badInput{name: "another origin", method: "PUT", target: inst, body: ok, header: "Origin: https://evil.example", status: 403, code: muster.CodeForbidden}
	return []badInput{
		post(service+"/instances", `{"id":"web-9","address":"10.0.0.5","port":80}`, muster.CodeConflictingField, "/id"),
		post(batch, `{}x`, muster.CodeInvalidJSON, ""), post(batch, `{"instances":{}}`, muster.CodeInvalidJSON, "/instances"), post(batch, `{"instances":[null]}`, muster.CodeInvalidJSON, "/instances/0"),
		post(batch, `{"instances":[{"port":"80"}]}`, muster.CodeInvalidPort, "/instances/0/port"), post(batch, `{"instances":[{},{"prot":80}]}`, muster.CodeUnknownField, "/instances/1/prot"),
		post(batch, `{"instance":[]}`, muster.CodeUnknownField, "/instance"), post(batch, `{"instances":[`+strings.Repeat(`{},`, 500)+`{}]}`, muster.CodeBodyTooLarge, ""),
		post(batch, `{"instances":[`+strings.Repeat(" ", 1<<20)+`]}`, muster.CodeBodyTooLarge, ""), post(batch+"?namespace=a", `{"instances":[]}`, muster.CodeUnknownParameter, "?namespace"),
		override(`{}`, muster.CodeConflictingField, "/status"), override(`{"status":"up"}`, muster.CodeConflictingField, "/status"), override(`{"status":7}`, muster.CodeInvalidJSON, "/status"),
		override(`{"status":"maintenance","until":"tomorrow"}`, muster.CodeInvalidDuration, "/until"), override(`{"status":"maintenance","until":7}`, muster.CodeInvalidDuration, "/until"),
		override(`{"status":"maintenance","untill":"2026-01-03T00:00:00Z"}`, muster.CodeUnknownField, "/untill"), override(`{"status":"draining","reason":"`+strings.Repeat("r", 300)+`"}`, muster.CodeInvalidName, ""),
		post("/v1/cluster/leader", `{"too":"n"}`, muster.CodeUnknownField, "/too"), post("/v1/cluster/leader", ``, muster.CodeInvalidJSON, ""), post("/v1/cluster/leader", `{"to":7}`, muster.CodeInvalidJSON, "/to"),
		origin, with(badInput{name: "cross-site", method: "DELETE", target: inst, status: 403, code: muster.CodeForbidden}, "Sec-Fetch-Site: cross-site"),
		with(ask("GET", service, muster.CodeUnknownHost), "Host: evil.example"), with(ask("GET", service, muster.CodeUnknownHost), "Host: 10.0.0.1:7400"),
		with(ask("GET", service, muster.CodeUnknownHost), "Host: localhost.evil.example"), with(ask("GET", "/livez", muster.CodeUnknownHost), "Host: evil.example:7400"),
	}
}

// TestBadInput sends every bad request over a real connection's worth of parsing
// and asserts status, code and pointer, that the answer is a problem, that its
// id is the caller's, and that nothing was written.
func TestBadInput(t *testing.T) {
	f := newFixture(t, nil)
	seed := &muster.Instance{Service: "web", ID: "web-1", Address: "10.0.0.9", Port: 9, Weight: 1}
	if _, err := f.registry.Register(t.Context(), muster.Caller{}, seed, muster.Condition{}); err != nil {
		t.Fatal(err)
	}
	before, _, err := f.registry.Service(t.Context(), muster.ServiceKey{Service: "web"}, nil, muster.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cases := badInputs()
	if len(cases) < 400 {
		t.Errorf("only %d cases", len(cases))
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { refused(t, f.server.Handler(), c) })
	}
	after, _, err := f.registry.Service(t.Context(), muster.ServiceKey{Service: "web"}, nil, muster.ReadOptions{})
	if err != nil || after != before {
		t.Errorf("the registry was changed: %v, %s", err, after.JSON())
	}
}

// request makes what net/http would hand to a handler.
func request(t testing.TB, c badInput) *http.Request {
	t.Helper()
	head := c.method + " " + c.target + " HTTP/1.1\r\n"
	if !strings.Contains(c.header, "Host:") {
		head += "Host: localhost\r\n"
	}
	if c.header != "" {
		head += strings.ReplaceAll(c.header, "\n", "\r\n") + "\r\n"
	}
	r, err := http.ReadRequest(reader(fmt.Sprintf("%sMuster-Request-Id: mine\r\nContent-Length: %d\r\n\r\n%s", head, len(c.body), c.body)))
	if err != nil {
		t.Fatalf("net/http itself refuses %q: %v", head, err)
	}
	r.RemoteAddr = "127.0.0.1:4711"
	return r
}

func refused(t *testing.T, h http.Handler, c badInput) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, request(t, c))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	var p problem.Problem
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatalf("answered %d with no problem: %.200s", w.Code, body)
	}
	if w.Code != c.status || p.Code != c.code || p.Status != c.status {
		t.Errorf("answered %d %s, want %d %s: %s", w.Code, p.Code, c.status, c.code, body)
	}
	if c.pointer != "" && (len(p.Errors) == 0 || p.Errors[0].Pointer != c.pointer) {
		t.Errorf("the first fault is at %v, want %s", p.Errors, c.pointer)
	}
	if got := w.Header().Get("Content-Type"); got != problem.ContentType {
		t.Errorf("Content-Type %q", got)
	}
	if p.RequestID != "mine" || w.Header().Get("Muster-Request-Id") != "mine" {
		t.Errorf("request id %q and %q, want mine", p.RequestID, w.Header().Get("Muster-Request-Id"))
	}
	if c.status == 405 && w.Header().Get("Allow") == "" {
		t.Error("405 without Allow")
	}
	for k, vv := range w.Header() {
		for _, v := range vv {
			if strings.ContainsAny(v, "\r\n\x00") {
				t.Errorf("header %s: %q", k, v)
			}
		}
	}
}

// TestManyFaultsAtOnce: a user is told of all faults of a body, not of the first.
func TestManyFaultsAtOnce(t *testing.T) {
	err := httpapi.DecodeJSON([]byte(`{"prot":1,"port":"x","ttl":5,"tags":[1,"a",2],"checks":[{"type":"tcp","fall":"x"}],"weight":[]}`), new(muster.Instance))
	e, ok := err.(*muster.Error)
	if !ok {
		t.Fatalf("got %v", err)
	}
	var got []string
	for _, f := range e.Fields {
		got = append(got, f.Pointer)
	}
	want := "/prot /port /ttl /tags/0 /tags/2 /checks/0/fall /weight"
	if e.Code != muster.CodeUnknownField || strings.Join(got, " ") != want {
		t.Errorf("got %s at %v, want %s", e.Code, got, want)
	}
	if err := httpapi.DecodeJSON([]byte(`{"Port":1}`), new(muster.Instance)); err.(*muster.Error).Hint == "" {
		t.Error("no hint for a name in the wrong case")
	}
	many := httpapi.DecodeJSON([]byte(`{"tags":[`+strings.Repeat("1,", 1000)+`1]}`), new(muster.Instance)).(*muster.Error)
	if len(many.Fields) != 16 {
		t.Errorf("%d faults are told, want 16", len(many.Fields))
	}
}
