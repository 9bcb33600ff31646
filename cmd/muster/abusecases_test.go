package main

import (
	"fmt"
	"slices"
	"strings"
)

const (
	abuseService  = "/v1/services/web"
	abuseInstance = abuseService + "/instances/web-1"
	abuseBody     = `{"address":"10.0.0.5","port":80}`
)

func abuseNames() []abuse {
	long := strings.Repeat("a", 129)
	bad := []string{"we%20b", "-web", "web-", ".web", "web.", "w%C3%A9b", "web%3B", "%F0%9F%92%A5", "%3Cscript%3E", "we%25b", "we,b", long}
	var cases []abuse
	for _, name := range bad {
		cases = append(cases, asks("GET", "400 invalid_name", "/v1/services/"+name, abuseService+"?namespace="+name, abuseService+"/instances/"+name, abuseService+"/pick?namespace="+name)...)
		cases = append(cases, sends("PUT", "/v1/services/"+name+"/instances/a", "400 invalid_name", abuseBody)...)
		cases = append(cases, sends("PUT", abuseService+"/instances/"+name+"/heartbeat", "400 invalid_name", "")...)
		cases = append(cases, asks("DELETE", "400 invalid_name", abuseService+"/instances/"+name)...)
	}
	for _, name := range []string{"", "a b", "-a", "a/b", "..", "é", long} {
		cases = append(cases, sends("PUT", abuseInstance, "400 conflicting_field", `{"address":"10.0.0.5","port":80,"service":"`+name+`x"}`)...)
		if name != "" {
			cases = append(cases, asks("GET", "400 invalid_name", "/v1/events?service="+strings.ReplaceAll(name, " ", "%20"))...)
		}
	}
	return cases
}

func abusePaths() []abuse {
	cases := asks("GET", "400 invalid_path",
		"/v1//services", "//v1/services", "/v1/services//web", "/v1/services/web//", "/v1/./services", "/v1/../v1/services", "/v1/services/..", "/v1/services/.",
		"/v1/services/%2e%2e", "/v1/services/%2E", "/v1/services/a%2eb", "/v1/services/a%2Fb", "/v1/services/a%2fb", "/v1/services/a%5Cb", `/v1/services/a\b`,
		"/v1/services/a%00b", "/v1/services/a%0d%0aInjected:%201", "/v1/services/a%0Ab", "/v1/services/a%7fb", "/v1/services/a%ff", "*", "/%2e%2e/%2e%2e/etc/passwd",
		"/v1/services/web/instances/..%2f..%2f", "/v1/cluster/../services", "/livez/..")
	cases = append(cases, asks("DELETE", "400 invalid_path", abuseService+"/instances/%2e%2e", abuseService+"//instances/web-1", "/v1/cluster/members/..", "/v1/leases/%2F")...)
	cases = append(cases, asks("PUT", "400 invalid_path", "/v1/cluster/governor/..", "/v1//cluster/snapshot", abuseService+"/instances/web-1%2fheartbeat")...)
	cases = append(cases, asks("GET", "414 uri_too_long", "/v1/services/"+strings.Repeat("a", 9000), abuseService+"?filter="+strings.Repeat("a", 9000), "/"+strings.Repeat("%61", 3000))...)
	cases = append(cases, asks("GET", "404 not_found",
		"/", "/v1", "/v1/", "/v1/services/", "/v2/services", abuseService+"/", "/statusfoo", "/index.html", "/favicon.ico", "/debug/pprof/", "/V1/services", abuseInstance+"/x", "/.well-known%20x", "/metrics/")...)
	big := abuse{name: "200 KB URI", raw: []string{"GET /v1/services/" + strings.Repeat("a", 200<<10) + " HTTP/1.1\r\nHost: localhost\r\n\r\n"}, want: "414 uri_too_long", closes: true}
	return append(cases, big)
}

func abuseJSON() []abuse {
	cases := sends("PUT", abuseInstance, "400 invalid_json",
		``, ` `, `null`, `[]`, `"x"`, `7`, `true`, `{`, `{"address"`, `{"address":}`, `{address:1}`, `{"address":"10.0.0.5",}`, `{'address':1}`, abuseBody+`{}`, abuseBody+`x`,
		abuseBody+"\x00", "\ufeff"+abuseBody, `{"address":"10.0.0.5" "port":80}`, "{\"address\":\"\xff\xfe\",\"port\":80}", "{\"address\":\"a\nb\"}", `{"address":"\ud800"}`,
		`{"address":"\udc00\ud800"}`, `{"address":"\x41"}`, `{"address":"\u00g0"}`, `{"port":NaN}`, `{"port":Infinity}`, `{"port":+80}`, `{"port":080}`, `{"port":.5}`, `{"port":1.}`,
		`{"port":0x50}`, `{"port":1e}`, `{"address":True}`, `{"tags":["a",]}`, `{"tags":[,]}`, `{/*c*/"port":80}`, `{"override":`+strings.Repeat("[", 17)+strings.Repeat("]", 17)+`}`,
		strings.Repeat(`{"override":`, 5000), strings.Repeat("[", 60000), "\xc3\x28", "{\"a\xc0\xaf\":1}", "PK\x03\x04")
	cases = append(cases, sends("PUT", abuseInstance, "413 body_too_large", `{"address":"`+strings.Repeat("a", 70000)+`"}`, strings.Repeat(" ", 64<<10)+abuseBody)...)
	cases = append(cases, sends("POST", "/v1/batch/register", "413 body_too_large", `{"instances":[`+strings.Repeat(" ", 1<<20)+`]}`, `{"instances":[`+strings.Repeat(`{},`, 500)+`{}]}`)...)
	cases = append(cases, registers("400 duplicate_field", `"port":81`, `"po\u0072t":81`, `"meta":{"a":"1","a":"2"}`, `"override":{"a":1,"a":2}`, `"status":"up","status":"up"`, `"tags":[],"tags":[]`)...)
	cases = append(cases, registers("400 unknown_field", `"prot":80`, `"Port":80`, `"PORT":80`, `"ADDRESS":"10.0.0.6"`, `"":3`, `"a/b~c":3`, `"place":3`, `"checks":[{"type":"tcp","Interval":"5s"}]`, `"__proto__":{}`)...)
	for _, target := range []string{"/v1/batch/register", "/v1/heartbeats", "/v1/leases", "/v1/cluster/leader", "/v1/picks/x.Y", abuseInstance + "/outcomes", abuseService + "/instances"} {
		cases = append(cases, sends("POST", target, "400 invalid_json", `{}x`, `[1]`, "{\"\xff\":1}", `{"a":`)...)
		cases = append(cases, sends("POST", target, "400 unknown_field", `{"nonsense":1}`)...)
	}
	for _, target := range []string{abuseInstance + "/override", abuseService + "/settings", "/v1/cluster/governor"} {
		cases = append(cases, sends("PUT", target, "400 invalid_json", `{}x`, `[1]`, "{\"\xff\":1}")...)
		cases = append(cases, sends("PUT", target, "400 unknown_field", `{"nonsense":1}`)...)
	}
	return cases
}

func abuseFields() []abuse {
	return slices.Concat(
		registers("400 invalid_port", `"ports":{"a":0}`, `"ports":{"a":"1"}`, `"ports":{"a":null}`, `"ports":[80]`, `"weight":-1`, `"weight":65536`, `"weight":"1"`, `"weight":1.5`),
		sends("PUT", abuseInstance, "400 invalid_port", `{"address":"10.0.0.5","port":0}`, `{"address":"10.0.0.5","port":-1}`, `{"address":"10.0.0.5","port":65536}`, `{"address":"10.0.0.5","port":80.5}`,
			`{"address":"10.0.0.5","port":"80"}`, `{"address":"10.0.0.5","port":1e2}`, `{"address":"10.0.0.5","port":99999999999999999999}`, `{"address":"10.0.0.5","port":null}`, `{"address":"10.0.0.5"}`),
		registers("400 invalid_index", `"incarnation":-1`, `"incarnation":"7"`, `"incarnation":9007199254740992`, `"incarnation":99999999999999999999`, `"incarnation":1.5`),
		registers("400 invalid_json", `"tags":"a"`, `"tags":[1]`, `"tags":["a",null]`, `"meta":{"a":1}`, `"meta":[]`, `"zone":7`, `"lease_id":42`),
		registers("400 conflicting_field", `"on_expiry":"explode"`, `"remove_after":"1m"`, `"namespace":"other"`, `"service":"api"`, `"id":"web-2"`, `"id":"WEB-1"`),
		registers("400 invalid_duration", `"remove_after":60`, `"checks":[{"type":"tcp","interval":5}]`),
		registers("400 invalid_check", `"checks":{}`, `"checks":[null]`, `"checks":["tcp"]`, `"checks":[{"type":"exec"}]`, `"checks":[{"type":"tcp","fall":"3"}]`, `"checks":[{"type":"http","path":"http://169.254.169.254/"}]`),
		registers("400 invalid_name", `"version":"a\nb"`, `"tags":["a\u0000b"]`, `"meta":{"a":"x\r\ny"}`, `"meta":{"":"x"}`, `"zone":"a\r\nInjected: 1"`, `"version":"\u0000"`),
		registers("404 unknown_lease", `"lease_id":"42-0"`),
	)
}

func abuseMedia() (cases []abuse) {
	add := func(want string, headers ...string) {
		cases = append(cases, abuse{name: strings.Join(headers, " "), raw: []string{rawRequest("PUT", abuseInstance, abuseBody, headers...)}, want: want})
	}
	for _, h := range []string{
		"Content-Type: text/plain", "Content-Type: application/xml", "Content-Type: application/json; charset=latin1", "Content-Type: ;", "Content-Type: multipart/form-data; boundary=x",
		"Content-Type: application/jsonx", "Content-Type: text/html", "Content-Encoding: gzip", "Content-Encoding: identity, gzip", "Content-Encoding: br", "Content-Encoding: deflate",
	} {
		add("415 unsupported_media_type", h)
	}
	add("415 unsupported_media_type", "Content-Type: application/json", "Content-Type: text/plain")
	for _, h := range []string{
		"If-Match: 1-0", `If-Match: "1-0`, `If-Match: "x"`, `If-Match: ""`, `If-Match: *`, `If-Match: "0"`, `If-Match: "1-0", "2-0"`, `If-Match: W/"1-0"`, `If-Match: "99999999999999999999-0"`, `If-None-Match: "1-0"`,
	} {
		add("400 invalid_index", h)
	}
	add("412 precondition_failed", `If-Match: "1-0"`)
	add("412 precondition_failed", "If-None-Match: *")
	add("400 conflicting_field", `If-Match: "1-0"`, "If-None-Match: *")
	add("403 forbidden", "Origin: https://evil.example")
	add("403 forbidden", "Sec-Fetch-Site: cross-site")
	for _, host := range []string{"evil.example", "10.0.0.1:7400", "localhost.evil.example", "evil.example:7400", "169.254.169.254", "127.0.0.1.nip.io"} {
		add("421 unknown_host", "Host: "+host)
	}
	return cases
}

func abuseTimes() []abuse {
	return slices.Concat(
		registers("400 ttl_out_of_range", `"ttl":10`, `"ttl":1e400`, `"ttl":"10"`, `"ttl":"0s"`, `"ttl":"-1s"`, `"ttl":"999ms"`, `"ttl":"24h1s"`, `"ttl":""`, `"ttl":{"s":1}`, `"ttl":"NaN"`, `"ttl":true`, `"ttl":"None"`, `"ttl":"9999999999h"`),
		asks("GET", "400 invalid_duration", abuseService+"?index=1&wait=-1s", abuseService+"?wait=abc", abuseService+"?wait=", abuseService+"?wait=10", abuseService+"?wait=1e3s", abuseService+"?wait=-1",
			abuseService+"?timeout=0s", abuseService+"?timeout=-1s", abuseService+"?timeout=x", abuseService+"?max_stale=0s", abuseService+"?max_stale=5", abuseService+"?wait=9999999999h"),
		sends("PUT", abuseInstance+"/override", "400 invalid_duration", `{"status":"maintenance","until":"tomorrow"}`, `{"status":"maintenance","until":7}`, `{"status":"maintenance","until":"2026-13-01T00:00:00Z"}`),
		asks("POST", "400 invalid_duration", abuseService+"/pick?ticket_ttl=", abuseService+"/pick?ticket_ttl=0s", abuseService+"/pick?ticket_ttl=10m1s", abuseService+"/pick?ticket_ttl=30"),
		sends("POST", "/v1/leases", "400 ttl_out_of_range", `{"ttl":"0s"}`, `{"ttl":"25h"}`, `{"ttl":5}`, `{"ttl":"none"}`),
	)
}

func abuseAddresses() (cases []abuse) {
	for _, a := range []string{`"::1%eth0"`, `"0.0.0.0"`, `"::"`, `"224.0.0.1"`, `"ff02::1"`, `"010.0.0.1"`, `"[::1]:80"`, `"10.0.0.5:80"`, `"user@host"`, `"user:pw@10.0.0.1"`, `""`, `7`, `"a b"`, `"-a"`,
		`"::ffff:0.0.0.0"`, `"::ffff:224.0.0.1"`, `"10.0.0.256"`, `"10.0.0"`, `"0x7f.1"`, `"http://a"`, `"a/b"`, `"a\u0000b"`, `"host\r\nInjected: 1"`, `"é.example"`, `"` + strings.Repeat("a.", 200) + `a"`} {
		cases = append(cases, sends("PUT", abuseInstance, "400 invalid_address", `{"port":80,"address":`+a+`}`)...)
	}
	return append(cases, sends("PUT", abuseInstance, "400 invalid_address", `{"port":80}`, `{"port":80,"address":null}`)...)
}

func abuseMetadata() []abuse {
	var pairs, tags, heavy []string
	for n := range 65 {
		pairs = append(pairs, fmt.Sprintf(`"k%d":"v"`, n))
		tags = append(tags, fmt.Sprintf(`"t%d"`, n))
	}
	for n := range 20 {
		heavy = append(heavy, fmt.Sprintf(`"k%d":"%s"`, n, strings.Repeat("v", 1000)))
	}
	return registers("400 metadata_too_large", `"meta":{`+strings.Join(pairs, ",")+`}`, `"tags":[`+strings.Join(tags, ",")+`]`, `"meta":{`+strings.Join(heavy, ",")+`}`,
		`"meta":{"`+strings.Repeat("k", 129)+`":"v"}`, `"meta":{"a":"`+strings.Repeat("v", 1025)+`"}`, `"tags":["`+strings.Repeat("t", 129)+`"]`)
}

func abuseCursors() []abuse {
	bad := []string{"-1", "x", "", "1.5", "18446744073709551616", "9007199254740992", "%2B1", "%201", "0x10", "1e3", "NaN", "99999999999999999999999"}
	var cases []abuse
	for _, v := range bad {
		cases = append(cases, asks("GET", "400 invalid_index", abuseService+"?index="+v, abuseService+"?min_index="+v, "/v1/watch?from="+v, "/v1/events?since="+v)...)
	}
	for _, v := range []string{"-1", "0", "x", "1.5", "9007199254740992"} {
		cases = append(cases, asks("DELETE", "400 invalid_index", abuseInstance+"?incarnation="+v)...)
		cases = append(cases, sends("PUT", abuseInstance+"/heartbeat?incarnation="+v, "400 invalid_index", "")...)
	}
	cases = append(cases, abuse{name: "Last-Event-ID", raw: []string{rawRequest("GET", "/v1/watch", "", "Last-Event-ID: x")}, want: "400 invalid_index"},
		abuse{name: "two Last-Event-IDs", raw: []string{rawRequest("GET", "/v1/watch", "", "Last-Event-ID: 1", "Last-Event-ID: 2")}, want: "400 invalid_index"})
	return append(cases, asks("GET", "410 cursor_gone", abuseService+"?index=9007199254740991", abuseService+"?cluster=other", abuseService+"?index=1&cluster=other", "/v1/services?index=1099511627775&wait=1s",
		abuseInstance+"?index=9007199254740991", "/v1/watch?from=9007199254740991", "/v1/watch?from=1&cluster=other")...)
}

func abuseQueries() []abuse {
	var cases []abuse
	for want, queries := range map[string][]string{
		"400 unknown_parameter": {"x=1", "Index=1", "index%20=1", "stauts=up", "tag%5B%5D=a", "meta=a", "Meta.a=b", "service=a", "limit=1", "reason=x", "consistency=strong", "consistency=", "zone=%zz",
			"zone=%", "%zz=a", "zone=a%00", "zone=a%0d%0aInjected:x", "zone=%ff", "zone=a;b", ";", "=", "filter=a%7f", "a&b", "prefix=a", "view=people"},
		"400 duplicate_field": {"index=1&index=2", "status=up&status=up", "zone=a&zone=a", "meta.a=1&meta.a=1", "namespace=a&namespace=b", "wait=1s&wait=1s", "z%6Fne=a&zone=a"},
		"400 invalid_filter": {"status=UP", "status=bogus", "status=", "routable=yes", "routable=", "zone=", "version=", "tag=", "filter=", "filter=%28", "filter=weight%20%3D%3D", "filter=nonsense%20%3D%3D%201",
			"filter=" + strings.Repeat("%28", 1000), "filter=" + strings.Repeat("not%20", 900) + "zone%20==%20a"},
		"400 conflicting_field": {"view=balancer&zone=a", "view=balancer&index=1"},
	} {
		for _, q := range queries {
			cases = append(cases, asks("GET", want, abuseService+"?"+q)...)
		}
	}
	cases = append(cases, asks("GET", "400 unknown_parameter", "/v1/events?limit=0", "/v1/events?limit=1001", "/v1/events?limit=x", "/v1/limits?x", "/metrics?x=1", "/livez?verbose", "/readyz?require=", "/v1/cluster?namespace=a",
		abuseService+"/pick?n=0", abuseService+"/pick?n=101", abuseService+"/pick?n=-1", abuseService+"/pick?index=1")...)
	cases = append(cases, asks("GET", "400 invalid_strategy", abuseService+"/pick?strategy=", abuseService+"/pick?strategy=RANDOM", abuseService+"/pick?strategy=rendezvous", abuseService+"/pick?strategy=bounded_hash&key=")...)
	cases = append(cases, asks("DELETE", "400 invalid_name", abuseInstance+"?reason="+strings.Repeat("r", 257), abuseInstance+"?reason=a%E2%80%A8b")...)
	return append(cases, asks("DELETE", "400 unknown_parameter", abuseInstance+"?reason=a%0ab", abuseInstance+"?reason=%00", abuseInstance+"?index=1")...)
}

func abuseOperations() []abuse {
	cases := slices.Concat(
		sends("POST", "/v1/cluster/leader", "404 unknown_member", `{"to":"nobody"}`), asks("DELETE", "404 unknown_member", "/v1/cluster/members/nobody"),
		sends("POST", "/v1/picks/x.Y", "404 unknown_ticket", `{"outcome":"success"}`), asks("GET", "404 unknown_lease", "/v1/leases/42-0"), asks("DELETE", "404 unknown_lease", "/v1/leases/42-0"),
		sends("PUT", "/v1/leases/42-0/heartbeat", "404 unknown_lease", ""), asks("GET", "404 unknown_service", "/v1/services/nothing", "/v1/services/nothing/pick"), asks("GET", "404 unknown_instance", abuseService+"/instances/nobody"),
		asks("DELETE", "404 unknown_instance", abuseService+"/instances/nobody"), sends("PUT", abuseService+"/instances/nobody/heartbeat", "404 unknown_instance", ""),
		sends("PUT", abuseInstance+"/override", "400 conflicting_field", `{}`, `{"status":"up"}`), sends("POST", abuseInstance+"/outcomes", "400 conflicting_field", `{}`, `{"failures":1000001}`),
		sends("PUT", "/v1/cluster/snapshot", "400 malformed_request", ""),
		sends("POST", "/v1/heartbeats", "413 body_too_large", `{"leases":["`+strings.Repeat(`1-0","`, 1000)+`1-0"]}`),
	)
	for _, backup := range []string{"x", "MUSTER", strings.Repeat("\x00", 100_000), strings.Repeat("\xff", 5000)} {
		cases = append(cases, sends("PUT", "/v1/cluster/snapshot", "400 malformed_request", backup)...)
	}
	return cases
}
