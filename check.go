package muster

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// CheckType names a kind of health check.
type CheckType string

// The kinds of health check.
const (
	CheckHTTP CheckType = "http"
	CheckTCP  CheckType = "tcp"
	CheckGRPC CheckType = "grpc"
	// CheckService makes an instance depend on a service: it is up only while
	// that service has a routable instance.
	CheckService CheckType = "service"
)

// Check is a health check that an instance declares and the cluster runs. The
// target is always the instance's own address.
type Check struct {
	Name string    `json:"name"`
	Type CheckType `json:"type"`
	// Port is the port to probe; 0 is the instance's port.
	Port int `json:"port,omitempty"`
	// Method and Path are an http check's; GET and / by default.
	Method string `json:"method,omitempty"`
	Path   string `json:"path,omitempty"`
	// Expect is the range of HTTP statuses that pass, "200-399" by default.
	Expect string `json:"expect,omitempty"`
	// Contains is text that the first 4 KiB of the body must hold.
	Contains string `json:"contains,omitempty"`
	// TLS makes an http or grpc check speak TLS; the certificate is not verified.
	TLS bool `json:"tls,omitempty"`
	// Service is the service a grpc check asks for, or the one a service check
	// depends on (in the instance's namespace).
	Service  string   `json:"service,omitempty"`
	Interval Duration `json:"interval,omitempty"`
	Timeout  Duration `json:"timeout,omitempty"`
	// Fall is how many failures in a row make it fail, Rise how many successes
	// in a row make it pass.
	Fall int `json:"fall,omitempty"`
	Rise int `json:"rise,omitempty"`

	// CheckState is the registry's to write; what a request says there is ignored.
	CheckState
}

// CheckState is what the cluster knows of a check, as of its last transition.
type CheckState struct {
	// Status is unknown, up or down.
	Status Status     `json:"status,omitempty"`
	Cause  CheckCause `json:"cause,omitempty"`
	// Output is what the probe that decided it saw; at most MaxCheckOutputLen
	// printable bytes.
	Output string `json:"output,omitempty"`
	// Latency is how long that probe took.
	Latency Duration  `json:"latency,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	// Contested says that of the two nodes that probe it one sees it failing and
	// the other does not.
	Contested bool `json:"contested,omitempty"`
}

// CheckCause says why a check failed.
type CheckCause string

// The causes of a failed check.
const (
	CheckTimeout          CheckCause = "timeout"
	CheckRefused          CheckCause = "connection_refused"
	CheckUnreachable      CheckCause = "unreachable"
	CheckDNS              CheckCause = "dns"
	CheckTLS              CheckCause = "tls"
	CheckProtocol         CheckCause = "protocol"
	CheckHTTPStatus       CheckCause = "http_status"
	CheckBody             CheckCause = "body"
	CheckNotServing       CheckCause = "not_serving"
	CheckIdentityMismatch CheckCause = "identity_mismatch"
	// CheckForbidden: the target is one that the registry does not connect to.
	CheckForbidden CheckCause = "forbidden_target"
	// CheckDependency: the service it depends on has no routable instance.
	CheckDependency CheckCause = "dependency"
)

// SameChecks reports whether two lists of checks ask for the same, whatever is
// known of them.
func SameChecks(a, b []Check) bool {
	return slices.EqualFunc(a, b, func(x, y Check) bool {
		x.CheckState, y.CheckState = CheckState{}, CheckState{}
		return x == y
	})
}

// WorstCheck is the status that checks give their instance: down where one is
// down, else unknown where one is, else up.
func WorstCheck(checks []Check) Status {
	worst := StatusUp
	for n := range checks {
		switch checks[n].Status {
		case StatusUp:
		case StatusDown:
			return StatusDown
		default:
			worst = StatusUnknown
		}
	}
	return worst
}

// normalize fills in defaults and checks c, which is one of an instance of the
// service of.
func (c *Check) normalize(place int, of string) error {
	c.CheckState = CheckState{}
	if c.Name == "" {
		c.Name = "check-" + strconv.Itoa(place+1)
	}
	if !validName(c.Name, "._-") {
		return fmt.Errorf("name %q is not a name", clip(c.Name))
	}
	if c.Interval == 0 {
		c.Interval = Duration(DefaultInterval)
	}
	if c.Timeout == 0 {
		c.Timeout = Duration(min(DefaultCheckWait, time.Duration(c.Interval)))
	}
	if c.Fall == 0 {
		c.Fall = DefaultFall
	}
	if c.Rise == 0 {
		c.Rise = DefaultRise
	}
	switch {
	case time.Duration(c.Interval) < MinCheckInterval || time.Duration(c.Interval) > MaxCheckInterval:
		return fmt.Errorf("interval %s is not between %s and %s", c.Interval, MinCheckInterval, MaxCheckInterval)
	case c.Timeout <= 0 || c.Timeout > c.Interval:
		return fmt.Errorf("timeout %s is not between 0 and the interval %s", c.Timeout, c.Interval)
	case c.Fall < 1 || c.Fall > MaxFallRise || c.Rise < 1 || c.Rise > MaxFallRise:
		return fmt.Errorf("fall and rise are 1 to %d", MaxFallRise)
	case c.Port < 0 || c.Port > 65535:
		return fmt.Errorf("port %d is not between 1 and 65535", c.Port)
	}
	return c.normalizeKind(of)
}

func (c *Check) normalizeKind(of string) error {
	only := func(fields ...string) error {
		set := map[string]bool{
			"method": c.Method != "", "path": c.Path != "", "expect": c.Expect != "", "contains": c.Contains != "",
			"tls": c.TLS, "service": c.Service != "", "port": c.Port != 0,
		}
		for _, f := range fields {
			delete(set, f)
		}
		for _, f := range []string{"method", "path", "expect", "contains", "tls", "service", "port"} {
			if set[f] {
				return fmt.Errorf("%s is not a field of a %s check", f, c.Type)
			}
		}
		return nil
	}
	switch c.Type {
	case CheckHTTP:
		return firstError(only("method", "path", "expect", "contains", "tls", "port"), c.normalizeHTTP())
	case CheckTCP:
		return only("port")
	case CheckGRPC:
		if len(c.Service) > MaxNameLen || !printable(c.Service) {
			return fmt.Errorf("service is longer than %d bytes or holds control characters", MaxNameLen)
		}
		return only("tls", "service", "port")
	case CheckService:
		s, err := CleanService(c.Service)
		if err != nil {
			return fmt.Errorf("service %q is not a service name", clip(c.Service))
		}
		if s == of {
			return fmt.Errorf("service %q is the instance's own: none of its instances could become up first", s)
		}
		c.Service = s
		return only("service")
	}
	return fmt.Errorf("type %q is none of http, tcp, grpc, service", clip(string(c.Type)))
}

func (c *Check) normalizeHTTP() error {
	if c.Method == "" {
		c.Method = http.MethodGet
	}
	if c.Path == "" {
		c.Path = "/"
	}
	if c.Expect == "" {
		c.Expect = "200-399"
	}
	switch c.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodOptions:
	default:
		return fmt.Errorf("method %q is none of GET, HEAD, POST, OPTIONS", clip(c.Method))
	}
	if c.Path[0] != '/' || len(c.Path) > 1024 || !printable(c.Path) || strings.ContainsAny(c.Path, " #") {
		return fmt.Errorf("path %q is not a path that starts with / (at most 1024 bytes, no spaces, no fragment)", clip(c.Path))
	}
	if c.Method == http.MethodHead && c.Contains != "" {
		return fmt.Errorf("contains goes not with method HEAD, whose answer has no body")
	}
	if len(c.Contains) > 256 || !printable(c.Contains) {
		return fmt.Errorf("contains is longer than 256 bytes or holds control characters")
	}
	_, _, err := ParseExpect(c.Expect)
	return err
}

// ParseExpect reads a range of HTTP statuses, "200" or "200-399".
func ParseExpect(s string) (low, high int, err error) {
	left, right, ranged := strings.Cut(s, "-")
	low, err = strconv.Atoi(left)
	high = low
	if err == nil && ranged {
		high, err = strconv.Atoi(right)
	}
	if err != nil || low < 100 || high > 599 || low > high {
		return 0, 0, fmt.Errorf("expect %q is not a status or a range of statuses such as 200-399", clip(s))
	}
	return low, high, nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
