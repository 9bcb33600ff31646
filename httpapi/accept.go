package httpapi

import "strings"

// wantsText reports whether the caller would rather have plain text than JSON
// (RFC 9110, 12.5.1): Accept gives it a higher quality, or the same and names it
// where JSON comes in only by a wildcard. Where it makes no difference the answer
// is JSON.
func (c *call) wantsText() bool {
	lines := c.r.Header["Accept"]
	if len(lines) == 0 || len(lines) == 1 && lines[0] == "*/*" {
		return false
	}
	text, json := taste(lines, "text", "plain"), taste(lines, "application", "json")
	if text.quality != json.quality {
		return text.quality > json.quality
	}
	return text.quality > 0 && text.precision > json.precision
}

// liking is how welcome a media type is: quality from 0 to 1, by a range as
// precise as precision says.
type liking struct {
	quality   float64
	precision int
}

// taste finds the most precise range of Accept that holds a media type.
func taste(lines []string, kind, sub string) liking {
	best := liking{precision: -1}
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			media, params, _ := strings.Cut(part, ";")
			k, s, _ := strings.Cut(strings.TrimSpace(media), "/")
			precision := 0
			switch {
			case strings.EqualFold(k, kind) && strings.EqualFold(s, sub):
				precision = 2
			case strings.EqualFold(k, kind) && s == "*":
				precision = 1
			case k != "*" || s != "*":
				continue
			}
			if precision > best.precision {
				best = liking{quality(params), precision}
			}
		}
	}
	return best
}
