package httpapi

import (
	"context"
	"fmt"
	"hash/fnv"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-registry/muster"
)

// getService answers GET /v1/services/{service} and …/instances: the view of a
// service, narrowed by the filters.
func (s *Server) getService(c *call) error {
	if c.values.has(paramView) {
		return s.getServiceStats(c)
	}
	q, err := c.values.query()
	if err != nil {
		return err
	}
	p, err := c.newPoll()
	if err != nil {
		return err
	}
	k := c.serviceKey()
	v, info, err := answer(p, source[*muster.View]{
		read: func(ctx context.Context, o muster.ReadOptions) (*muster.View, muster.ReadInfo, error) {
			return s.registry.Service(ctx, k, q, o)
		},
		same: sameInstances,
		pace: paceKey{namespace: k.Namespace, name: k.Service},
	})
	if err != nil {
		c.setRead(info)
		return err
	}
	return c.view(v, info, q)
}

// viewHeaders are the headers of a whole view, made once and shared by all who
// are answered with it.
type viewHeaders struct {
	index, etag, length []string
}

func headersOf(v *muster.View) any {
	index := strconv.FormatUint(v.Index, 10)
	return &viewHeaders{[]string{index}, []string{`"` + index + `"`}, []string{strconv.Itoa(len(v.JSON()))}}
}

// view writes a view straight from its own bytes.
func (c *call) view(v *muster.View, info muster.ReadInfo, q *muster.Query) error {
	h := c.w.Header()
	made := v.Derive("httpapi.headers", headersOf).(*viewHeaders)
	c.set(headerStale, strconv.FormatInt(info.Stale.Milliseconds(), 10))
	h[headerIndex] = made.index
	etag := made.etag
	if key := q.Key(); key != "" {
		etag = []string{listETag(v.Index, key)}
	}
	h[headerVary] = varyEncoding
	body, length := v.JSON(), made.length
	if len(body) >= compressLeast && wantsGzip(c.r.Header) {
		if z := v.Derive("httpapi.gzip", compress).(*compressed); z.body != nil {
			body, length = z.body, z.length
			h[headerEncoding] = encodingGzip
			etag = []string{"W/" + etag[0]} // other bytes that mean the same (RFC 9110 §8.8.1)
		}
	}
	h[headerETag] = etag
	if c.unchanged(strings.TrimPrefix(etag[0], "W/")) {
		delete(h, headerEncoding)
		return c.empty(http.StatusNotModified)
	}
	h[headerType] = typeJSON
	h[headerLength] = length
	c.status = http.StatusOK
	c.boundBody()
	c.deliver(body)
	return nil
}

// listETag is the entity tag of a list: its index and a marker of what narrows it.
func listETag(index uint64, narrowedBy string) string {
	tag := `"` + strconv.FormatUint(index, 10)
	if narrowedBy != "" {
		h := fnv.New64a()
		_, _ = h.Write([]byte(narrowedBy)) // a hash takes everything
		tag += "." + strconv.FormatUint(h.Sum64(), 36)
	}
	return tag + `"`
}

// sameInstances tells whether two views of a service show the same.
func sameInstances(a, b *muster.View) bool {
	if a.Protected != b.Protected || a.EmptyReason != b.EmptyReason || !sameSettings(a.Settings, b.Settings) {
		return false
	}
	return slices.EqualFunc(a.Instances, b.Instances, func(x, y *muster.Instance) bool {
		return x == y || x.ID == y.ID && x.ModifyIndex == y.ModifyIndex && x.Place == y.Place
	})
}

func sameSettings(a, b *muster.Settings) bool { return a == b || a != nil && b != nil && *a == *b }

// getServices answers GET /v1/services.
func (s *Server) getServices(c *call) error {
	p, err := c.newPoll()
	if err != nil {
		return err
	}
	namespace, prefix := c.values.text[paramNamespace], c.values.text[paramPrefix]
	list, info, err := answer(p, source[*muster.Services]{
		read: func(ctx context.Context, o muster.ReadOptions) (*muster.Services, muster.ReadInfo, error) {
			return s.registry.Services(ctx, namespace, prefix, o)
		},
		same: func(a, b *muster.Services) bool { return slices.Equal(a.Services, b.Services) },
		pace: paceKey{list: true, namespace: namespace, name: prefix},
	})
	c.setRead(info)
	if err != nil {
		return err
	}
	narrowed := ""
	if namespace != "" || prefix != "" {
		narrowed = namespace + "/" + prefix
	}
	etag := listETag(info.Index, narrowed)
	c.set(headerETag, etag)
	if c.unchanged(etag) {
		return c.empty(http.StatusNotModified)
	}
	body, err := s.rendered.of(fmt.Sprintf("services %d %q %q", info.Index, namespace, prefix), list)
	if err != nil {
		return err
	}
	return c.send(http.StatusOK, typeJSON, body)
}
