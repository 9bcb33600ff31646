package httpapi

import (
	"fmt"
	"iter"
	"math/bits"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/muster-registry/muster"
)

// param is a query parameter of the API.
type param uint8

const (
	paramNamespace param = iota
	paramPrefix
	paramStatus
	paramRoutable
	paramTag  // may be repeated
	paramMeta // meta.KEY, may be repeated with other keys
	paramZone
	paramVersion
	paramFilter
	paramIndex
	paramWait
	paramCluster
	paramMinIndex
	paramConsistency
	paramMaxStale
	paramTimeout
	paramReason
	paramIncarnation
	paramService
	paramInstance
	paramSince
	paramLimit
	paramRequire
	paramVerbose
	paramFrom
	paramServices // service where it may be repeated
	paramView
	paramStrategy
	paramKey
	paramN
	paramTicketTTL
	numParams
)

// metaPrefix begins the name of a parameter that filters by metadata.
const metaPrefix = "meta."

var paramNames = [numParams]string{
	"namespace", "prefix", "status", "routable", "tag", metaPrefix + "KEY", "zone", "version", "filter", "index", "wait",
	"cluster", "min_index", "consistency", "max_stale", "timeout", "reason", "incarnation", "service", "instance", "since",
	"limit", "require", "verbose", "from", "service", "view", "strategy", "key", "n", "ticket_ttl",
}

var paramByName = func() map[string]param {
	m := make(map[string]param, numParams)
	for p, name := range paramNames {
		if param(p) != paramMeta && param(p) != paramServices {
			m[name] = param(p)
		}
	}
	return m
}()

// paramSet is a set of parameters.
type paramSet uint64

func params(ps ...param) paramSet {
	var s paramSet
	for _, p := range ps {
		s |= 1 << p
	}
	return s
}

func (s paramSet) has(p param) bool { return s&(1<<p) != 0 }

// names lists the parameters of s.
func (s paramSet) names() iter.Seq[string] {
	return func(yield func(string) bool) {
		for rest := s; rest != 0; rest &= rest - 1 {
			if !yield(paramNames[bits.TrailingZeros64(uint64(rest))]) {
				return
			}
		}
	}
}

// The parameters that go together.
var (
	readParams   = params(paramNamespace, paramMinIndex, paramConsistency, paramMaxStale, paramTimeout)
	pollParams   = readParams | params(paramIndex, paramWait, paramCluster)
	filterParams = params(paramStatus, paramRoutable, paramTag, paramMeta, paramZone, paramVersion, paramFilter)
	writeParams  = params(paramNamespace, paramTimeout, paramReason)
	pickParams   = readParams | filterParams | params(paramStrategy, paramKey, paramN)
)

// values are the parameters of one request. The zero values are those of a
// request without a query.
type values struct {
	set  paramSet
	text [numParams]string
	tags []string
	meta map[string]string
	// services are those of paramServices.
	services []string
}

var noValues = new(values)

// badParam is the error of one parameter.
func badParam(code muster.Code, name, hint, format string, args ...any) error {
	detail := fmt.Sprintf(format, args...)
	return &muster.Error{
		Code: code, Detail: clip(name) + ": " + detail, Hint: hint,
		Fields: []muster.FieldError{{Pointer: "?" + clip(name), Detail: detail}},
	}
}

// parseQuery reads a query of which only the allowed parameters may be given, each
// once unless it may be repeated. The result is not to be changed.
func parseQuery(raw string, allowed paramSet) (*values, error) {
	if raw == "" {
		return noValues, nil
	}
	if strings.IndexByte(raw, ';') >= 0 {
		// Some proxies part parameters here: what two readers read differently is
		// refused.
		return nil, muster.Errorf(muster.CodeUnknownParameter, "the query holds a semicolon").WithHint("write it as %%3B")
	}
	v := new(values)
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		k, val, _ := strings.Cut(pair, "=")
		name, err := unescapeQuery(k)
		if err == nil {
			val, err = unescapeQuery(val)
		}
		if err != nil {
			return nil, badParam(muster.CodeUnknownParameter, k, "", "is not well-formed: a percent sign without two digits, a control character, or not UTF-8")
		}
		if err := v.add(name, val, allowed); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// add takes one parameter in.
func (v *values) add(name, val string, allowed paramSet) error {
	if key, ok := strings.CutPrefix(name, metaPrefix); ok && allowed.has(paramMeta) {
		if _, twice := v.meta[key]; twice {
			return badParam(muster.CodeDuplicateField, name, "", "is given twice")
		}
		if v.meta == nil {
			v.meta = map[string]string{}
		}
		v.meta[key] = val
		v.set |= 1 << paramMeta
		return nil
	}
	p, known := paramByName[name]
	if p == paramService && allowed.has(paramServices) {
		p = paramServices
	}
	if !known || !allowed.has(p) {
		hint := "this route takes no parameters"
		if allowed != 0 {
			hint = "this route takes " + strings.Join(collect(allowed.names()), ", ")
		}
		return badParam(muster.CodeUnknownParameter, name, hint, "is not a parameter of this route")
	}
	switch {
	case p == paramTag:
		v.tags = append(v.tags, val)
	case p == paramServices:
		v.services = append(v.services, val)
	case v.set.has(p):
		return badParam(muster.CodeDuplicateField, name, "", "is given twice")
	}
	v.set |= 1 << p
	v.text[p] = val
	return nil
}

func collect(seq iter.Seq[string]) []string {
	var s []string
	for v := range seq {
		s = append(s, v)
	}
	return s
}

func unescapeQuery(s string) (string, error) {
	if strings.IndexByte(s, '%') >= 0 || strings.IndexByte(s, '+') >= 0 {
		u, err := url.QueryUnescape(s)
		if err != nil {
			return "", err
		}
		s = u
	}
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == 0x7f {
			return "", strconv.ErrSyntax
		}
	}
	if !utf8.ValidString(s) {
		return "", strconv.ErrSyntax
	}
	return s, nil
}

func (v *values) has(p param) bool { return v.set.has(p) }

// index reads a parameter that is an index; 0 where it is not given.
func (v *values) index(p param) (uint64, error) {
	if !v.has(p) {
		return 0, nil
	}
	n, err := muster.ParseIndex(v.text[p])
	if err != nil {
		return 0, v.bad(p, err)
	}
	return n, nil
}

// duration reads a parameter that is a duration: otherwise where it is not given,
// and at most most.
func (v *values) duration(p param, otherwise, least, most time.Duration) (time.Duration, error) {
	if !v.has(p) {
		return otherwise, nil
	}
	d, err := muster.ParseDuration(v.text[p])
	if err != nil {
		return 0, v.bad(p, err)
	}
	if d < least {
		return 0, badParam(muster.CodeInvalidDuration, paramNames[p], "", "%s is below %s", d, least)
	}
	return min(d, most), nil
}

// flag reads a parameter that is on when it is given without a value.
func (v *values) flag(p param, code muster.Code) (on, given bool, err error) {
	if !v.has(p) {
		return false, false, nil
	}
	switch v.text[p] {
	case "true", "1":
		return true, true, nil
	case "false", "0":
		return false, true, nil
	case "":
		if p == paramVerbose {
			return true, true, nil
		}
	}
	return false, true, badParam(code, paramNames[p], "", "%q is neither true nor false", clip(v.text[p]))
}

// bad adds the parameter's name to an error about its value.
func (v *values) bad(p param, err error) error {
	e := *err.(*muster.Error)
	e.Fields = []muster.FieldError{{Pointer: "?" + paramNames[p], Detail: e.Detail}}
	e.Detail = paramNames[p] + ": " + e.Detail
	return &e
}

// query reads the filters; nil where there are none.
func (v *values) query() (*muster.Query, error) {
	if v.set&filterParams == 0 {
		return nil, nil
	}
	q := &muster.Query{
		Tags: v.tags, Zone: v.text[paramZone], Version: v.text[paramVersion], Meta: v.meta, Filter: v.text[paramFilter],
	}
	for _, p := range []param{paramZone, paramVersion, paramFilter, paramTag, paramStatus} {
		if v.has(p) && v.text[p] == "" {
			return nil, badParam(muster.CodeInvalidFilter, paramNames[p], "leave the parameter out to let everything through", "is empty")
		}
	}
	if v.has(paramStatus) {
		st, err := muster.ParseStatus(v.text[paramStatus])
		if err != nil {
			return nil, v.bad(paramStatus, err)
		}
		q.Status = st
	}
	on, given, err := v.flag(paramRoutable, muster.CodeInvalidFilter)
	if err != nil {
		return nil, err
	}
	if given {
		q.Routable = &on
	}
	return q, nil
}

// readOptions reads how current an answer has to be. bounded says that answering
// may take a while, for which timeout is then the limit.
func (v *values) readOptions() (o muster.ReadOptions, timeout time.Duration, bounded bool, err error) {
	if v.set&readParams == 0 {
		return o, muster.DefaultTimeout, false, nil
	}
	if timeout, err = v.timeout(); err != nil {
		return o, 0, false, err
	}
	switch c := v.text[paramConsistency]; {
	case !v.has(paramConsistency) || c == "local":
	case c == "linearizable":
		o.Linearizable = true
	default:
		return o, 0, false, badParam(muster.CodeUnknownParameter, "consistency", "", "%q is neither local nor linearizable", clip(c))
	}
	if o.MinIndex, err = v.index(paramMinIndex); err != nil {
		return o, 0, false, err
	}
	if o.MaxStale, err = v.duration(paramMaxStale, 0, time.Millisecond, muster.MaxTTL); err != nil {
		return o, 0, false, err
	}
	if v.has(paramTimeout) {
		o.Wait = timeout
	}
	return o, timeout, o.Linearizable || o.MinIndex > 0 || o.MaxStale > 0, nil
}

// timeout reads how long to try.
func (v *values) timeout() (time.Duration, error) {
	return v.duration(paramTimeout, muster.DefaultTimeout, time.Millisecond, muster.MaxTimeout)
}
