package main

import (
	"fmt"
	"slices"
	"strings"
)

// abuseFraming are requests that two readers could cut apart differently: all of them
// end the connection.
func abuseFraming() (cases []abuse) {
	const line = "PUT " + abuseInstance + " HTTP/1.1\r\nHost: localhost\r\n"
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(abuseBody), abuseBody)
	add := func(name string, pieces ...string) {
		cases = append(cases, abuse{name: name, raw: pieces, want: "400 malformed_request", closes: true})
	}
	add("TE and CL", line+"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"+chunked)
	add("CL and TE", line+"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n"+chunked)
	add("CL 0 and TE", line+"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n"+chunked)
	add("TE and CL in pieces", line+"Content-Len", "gth: 5\r", "\nTransf", "er-Encoding: chunked\r\n\r", "\n"+chunked)
	add("a smuggled request", line+"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nDELETE "+abuseInstance+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
	for _, v := range []string{"5\r\nContent-Length: 6", "0x20", "-1", "+5", "5, 6", "1e2", "", "99999999999999999999", " 5 5", "5\x00"} {
		add("Content-Length "+v, line+"Content-Length: "+v+"\r\n\r\n"+abuseBody)
	}
	for _, v := range []string{"gzip", "gzip, chunked", "chunked, gzip", "identity", "chunked\r\nTransfer-Encoding: chunked", "xchunked", "chunked, chunked", "\"chunked\"", "chunked;q=1", "chunked\x00"} {
		add("Transfer-Encoding "+v, line+"Transfer-Encoding: "+v+"\r\n\r\n"+chunked)
	}
	for _, body := range []string{
		strings.Replace(chunked, "\r\n", "\n", 1), "zz\r\n" + abuseBody, fmt.Sprintf("%x\r\n%sXX", len(abuseBody), abuseBody), "-1\r\n\r\n", "0x5\r\nhello\r\n0\r\n\r\n",
		"ffffffffffffffffff\r\n", strings.Repeat("0", 5000) + "1\r\n{\r\n", "5 \x00\r\nhello\r\n0\r\n\r\n", "\r\n0\r\n\r\n", "5;" + strings.Repeat("x", 5000) + "\r\nhello\r\n0\r\n\r\n",
	} {
		add("chunks "+body, line+"Transfer-Encoding: chunked\r\n\r\n"+body)
	}
	return cases
}

func abuseHeads() []abuse {
	const line = "GET /livez HTTP/1.1\r\nHost: localhost\r\n"
	var cases []abuse
	add := func(name, want, raw string) {
		cases = append(cases, abuse{name: name, raw: []string{raw}, want: want, closes: true})
	}
	const malformed = "400 malformed_request"
	add("two Hosts", malformed, line+"Host: localhost\r\n\r\n")
	add("no Host", malformed, "GET /livez HTTP/1.1\r\n\r\n")
	for _, host := range []string{"local host", "localhost\x00", "local\thost", "localhost/x", "<script>", "a\\b", "@"} {
		add("Host "+host, malformedOr421(host), "GET /livez HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
	}
	for _, h := range []string{"Nonsense", "Content-Length : 5", ": empty", " X: folded first", "X-\x00: d", "X-A\x80: d", "X A: d", "X-A: a\x00b", "Muster-Request-Id: a\rb", "Muster-Request-Id: a\x00b", "X-A: a\x7fb", "X-A: a\x01b", "(X): y"} {
		add("header "+h, malformed, line+h+"\r\n\r\n")
	}
	for _, first := range []string{
		"GET /v1/services/we b HTTP/1.1", "GET /v1/services/we\x00b HTTP/1.1", "GET /v1/services/we%zz HTTP/1.1", "GET /livez", "GET /livez HTTP/3.0", "GET /livez HTTP/1.1 ", "GET  /livez HTTP/1.1",
		"GET /livez HTTP/1.10", "GET /livez http/1.1", "GET /livez HTTP/1,1", "GET /livez HTTP/11", "G\x00T /livez HTTP/1.1", "G(T /livez HTTP/1.1", " GET /livez HTTP/1.1", "/livez HTTP/1.1", "hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"GET /livez\tHTTP/1.1", "GET http://[::1 HTTP/1.1", "SSH-2.0-OpenSSH_9.9", "GET /livez HTTP/-1.1", "GET livez HTTP/1.1",
	} {
		add("line "+first, malformed, first+"\r\nHost: localhost\r\n\r\n")
	}
	add("unknown expectation", malformed, line+"Expect: the-spanish-inquisition\r\nContent-Length: 0\r\n\r\n")
	add("200 KB header", "431 headers_too_large", line+"X-A: "+strings.Repeat("a", 200<<10)+"\r\n\r\n")
	add("200 KB name of a header", "431 headers_too_large", line+strings.Repeat("a", 200<<10)+": x\r\n\r\n")
	add("33 KB of headers", "431 headers_too_large", line+strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 33)+"\r\n")
	add("10,000 headers", "431 headers_too_large", line+strings.Repeat("X-A: a\r\n", 10_000)+"\r\n")
	for _, raw := range []string{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n"} {
		cases = append(cases, abuse{name: raw, raw: []string{raw}, want: "400 invalid_path"})
	}
	return cases
}

// malformedOr421 tells a Host that is none from one that is another's.
func malformedOr421(host string) string {
	if strings.ContainsAny(host, " \x00\t/<\\@") {
		return "400 malformed_request"
	}
	return "421 unknown_host"
}

func abuseMethods() []abuse {
	var cases []abuse
	for _, method := range []string{"POST", "PATCH", "TRACE", "PROPFIND", "get", "X", strings.Repeat("M", 100)} {
		cases = append(cases, asks(method, "405 method_not_allowed", abuseInstance)...)
	}
	return slices.Concat(cases, asks("DELETE", "405 method_not_allowed", "/v1/services", "/v1/limits", abuseService, abuseService+"/pick"), asks("POST", "405 method_not_allowed", "/metrics", "/livez", abuseInstance+"/heartbeat"),
		asks("GET", "405 method_not_allowed", "/v1/batch/register", "/v1/heartbeats", abuseInstance+"/heartbeat", abuseInstance+"/override", "/v1/picks/x"),
		asks("PUT", "405 method_not_allowed", "/v1/cluster", "/v1/watch", "/v1/events"))
}

// abuseTaken is odd and nevertheless good.
func abuseTaken() []abuse {
	ok := func(name, want string, pieces ...string) abuse { return abuse{name: name, raw: pieces, want: want} }
	const get = "GET /livez HTTP/1.1\r\nHost: localhost\r\n"
	cases := slices.Concat(asks("HEAD", "200", abuseService, "/livez", "/v1/services"), asks("OPTIONS", "204", abuseInstance, "/livez"),
		asks("GET", "200", abuseService+"?index=0&wait=1000h", "/v1/services/WEB", abuseService+"?meta.a%20b=c", abuseService+"?"))
	cases[0].name, cases[3].name = "HEAD", "OPTIONS"
	for _, host := range []string{"localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:7400", "127.1.2.3:80", "a.localhost", "localhost."} {
		cases = append(cases, ok("Host "+host, "200", "GET /livez HTTP/1.1\r\nHost: "+host+"\r\n\r\n"))
	}
	return append(cases, ok("HTTP/1.0 without Host", "200", "GET /livez HTTP/1.0\r\n\r\n"), ok("one byte at a time", "200", strings.Split(get+"\r\n", "")...),
		ok("a blank line before", "400 malformed_request", "\r\n"+get+"\r\n"), ok("an absolute target", "200", "GET http://localhost/livez HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		ok("a long request id", "200", get+"Muster-Request-Id: "+strings.Repeat("x", 1000)+"\r\n\r\n"),
		ok("31 KB of headers", "200", get+strings.Repeat("X-A: "+strings.Repeat("a", 900)+"\r\n", 28)+"\r\n"))
}
