package muster

import (
	"net/netip"
	"strings"
	"unicode/utf8"
)

// DefaultNamespace is the namespace of a request that names none.
const DefaultNamespace = "default"

// CleanNamespace folds a namespace to lower case and checks it; "" is
// DefaultNamespace.
func CleanNamespace(s string) (string, error) {
	if s == "" {
		return DefaultNamespace, nil
	}
	return cleanName("namespace", s)
}

// CleanService folds a service name to lower case and checks it: 1–128 of
// [A-Za-z0-9._-], alphanumeric at both ends.
func CleanService(s string) (string, error) { return cleanName("service", s) }

func cleanName(kind, s string) (string, error) {
	if !validName(s, "._-") {
		return "", Errorf(CodeInvalidName, "%s %q is not a name", kind, clip(s)).
			WithHint("use 1 to 128 of A-Z a-z 0-9 . _ - with a letter or a digit at both ends")
	}
	return strings.ToLower(s), nil
}

// CheckID checks an instance id: 1–128 of [A-Za-z0-9._:@-], alphanumeric at both
// ends. Ids are compared exactly.
func CheckID(s string) error {
	if !validName(s, "._:@-") {
		return Errorf(CodeInvalidName, "id %q is not an instance id", clip(s)).
			WithHint("use 1 to 128 of A-Z a-z 0-9 . _ : @ - with a letter or a digit at both ends")
	}
	return nil
}

func validName(s, extra string) bool {
	if s == "" || len(s) > MaxNameLen || !alphanumeric(s[0]) || !alphanumeric(s[len(s)-1]) {
		return false
	}
	for i := range len(s) {
		if !alphanumeric(s[i]) && strings.IndexByte(extra, s[i]) < 0 {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// CleanAddress checks the address of an instance, an IP or a host name, and
// returns it in canonical form: v4-mapped IPv6 as IPv4, host names in lower case.
func CleanAddress(s string) (string, error) {
	bad := func(why string) (string, error) {
		return "", Errorf(CodeInvalidAddress, "address %q %s", clip(s), why).
			WithHint("give an IP address or a host name that others can reach, without port, zone or brackets")
	}
	if s == "" {
		return bad("is empty")
	}
	if ip, err := netip.ParseAddr(s); err == nil {
		ip = ip.Unmap()
		switch {
		case ip.Zone() != "":
			return bad("has a zone")
		case ip.IsUnspecified():
			return bad("is unspecified")
		case ip.IsMulticast():
			return bad("is multicast")
		}
		return ip.String(), nil
	}
	if !validHost(s) {
		return bad("is neither an IP address nor a host name")
	}
	return strings.ToLower(s), nil
}

// validHost reports whether s is a host name: labels of letters, digits, - and _
// (which service names in DNS carry), the last label not all digits, so that a
// mistyped IPv4 address such as 010.0.0.1 is not taken for a name.
func validHost(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > MaxHostLen {
		return false
	}
	digits := false
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		digits = true
		for i := range len(label) {
			c := label[i]
			if !alphanumeric(c) && c != '-' && c != '_' {
				return false
			}
			digits = digits && '0' <= c && c <= '9'
		}
	}
	return !digits
}

// printable reports whether s is valid UTF-8 without control characters, so that
// it can be shown in a log, a header or a terminal as it is.
func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < 0x20 || r == 0x7f || 0x80 <= r && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			return false
		}
	}
	return true
}

// CleanReason checks the text of ?reason= or of an override's reason.
func CleanReason(s string) (string, error) {
	if len(s) > MaxReasonLen || !printable(s) {
		return "", Errorf(CodeInvalidName, "the reason is longer than %d bytes or holds control characters", MaxReasonLen)
	}
	return s, nil
}
