package httpapi

import (
	"fmt"
	"net/http"

	"github.com/gorilla/mux"

	"github.com/muster-registry/muster"
)

// permission is what a caller must be allowed for a route. Every route names one,
// or New fails.
type permission string

const (
	permPublic        permission = "public"
	permServiceRead   permission = "service:read"
	permServiceWrite  permission = "service:write"
	permOperatorRead  permission = "operator:read"
	permOperatorWrite permission = "operator:write"
)

// route is one row of the table.
type route struct {
	method     string // GET stands for HEAD too
	path       string // as gorilla/mux writes it
	class      class
	permission permission
	params     paramSet
	handle     func(*Server, *call) error

	meter routeMeter // filled in by New
}

// routeTable is the whole API. The router tries the rows in order, at a regular
// expression each, so that what is asked for most often stands first.
func routeTable() []*route {
	const (
		services  = "/v1/services"
		service   = services + "/{service}"
		instances = service + "/instances"
		instance  = instances + "/{id}"
		override  = instance + "/override"
		heartbeat = instance + "/heartbeat"
		settings  = service + "/settings"
		governor  = "/v1/cluster/governor"
		snapshot  = "/v1/cluster/snapshot"
		lease     = "/v1/leases/{id}"
		pick      = service + "/pick"
		logLevel  = "/v1/node/log-level"
	)
	return []*route{
		{method: "PUT", path: heartbeat, class: classVital, permission: permServiceWrite, params: params(paramNamespace, paramTimeout, paramIncarnation), handle: (*Server).beatInstance},
		{method: "POST", path: "/v1/heartbeats", class: classVital, permission: permServiceWrite, params: params(paramTimeout), handle: (*Server).beatMany},
		{method: "PUT", path: lease + "/heartbeat", class: classVital, permission: permServiceWrite, params: params(paramTimeout), handle: (*Server).beatLease},
		{method: "GET", path: pick, class: classRead, permission: permServiceRead, params: pickParams, handle: (*Server).getPick},
		{method: "POST", path: pick, class: classRead, permission: permServiceRead, params: pickParams | params(paramTicketTTL), handle: (*Server).postPick},
		{method: "POST", path: "/v1/picks/{ticket}", class: classRead, permission: permServiceRead, params: params(paramTimeout), handle: (*Server).postTicket},
		{method: "POST", path: instance + "/outcomes", class: classRead, permission: permServiceRead, params: readParams, handle: (*Server).postOutcomes},
		{method: "GET", path: service, class: classRead, permission: permServiceRead, params: pollParams | filterParams | params(paramView), handle: (*Server).getService},
		{method: "GET", path: instance, class: classRead, permission: permServiceRead, params: pollParams, handle: (*Server).getInstance},
		{method: "PUT", path: instance, class: classWrite, permission: permServiceWrite, params: writeParams, handle: (*Server).putInstance},
		{method: "DELETE", path: instance, class: classVital, permission: permServiceWrite, params: writeParams | params(paramIncarnation), handle: (*Server).deleteInstance},
		{method: "GET", path: instances, class: classRead, permission: permServiceRead, params: pollParams | filterParams | params(paramView), handle: (*Server).getService},
		{method: "POST", path: instances, class: classWrite, permission: permServiceWrite, params: writeParams, handle: (*Server).postInstance},
		{method: "POST", path: "/v1/batch/register", class: classWrite, permission: permServiceWrite, params: params(paramTimeout, paramReason), handle: (*Server).registerBatch},
		{method: "GET", path: services, class: classList, permission: permServiceRead, params: pollParams | params(paramPrefix), handle: (*Server).getServices},
		{method: "GET", path: "/v1/watch", class: classRead, permission: permServiceRead, params: params(paramServices, paramPrefix, paramNamespace, paramFrom, paramCluster), handle: (*Server).getWatch},

		{method: "POST", path: "/v1/leases", class: classWrite, permission: permServiceWrite, params: params(paramTimeout, paramReason), handle: (*Server).postLease},
		{method: "GET", path: lease, class: classRead, permission: permServiceRead, params: params(paramTimeout), handle: (*Server).getLease},
		{method: "DELETE", path: lease, class: classVital, permission: permServiceWrite, params: params(paramTimeout, paramReason), handle: (*Server).deleteLease},
		{method: "PUT", path: override, class: classWrite, permission: permOperatorWrite, params: writeParams, handle: (*Server).putOverride},
		{method: "DELETE", path: override, class: classWrite, permission: permOperatorWrite, params: writeParams, handle: (*Server).deleteOverride},
		{method: "GET", path: settings, class: classRead, permission: permServiceRead, params: readParams, handle: (*Server).getSettings},
		{method: "PUT", path: settings, class: classWrite, permission: permOperatorWrite, params: writeParams, handle: (*Server).putSettings},
		{method: "DELETE", path: settings, class: classWrite, permission: permOperatorWrite, params: writeParams, handle: (*Server).deleteSettings},
		{method: "GET", path: "/v1/events", class: classList, permission: permServiceRead, params: readParams | params(paramService, paramInstance, paramSince, paramLimit), handle: (*Server).getEvents},

		{method: "GET", path: snapshot, class: classBackup, permission: permOperatorRead, params: params(paramMinIndex, paramConsistency, paramMaxStale, paramTimeout), handle: (*Server).getSnapshot},
		{method: "PUT", path: snapshot, class: classBackup, permission: permOperatorWrite, params: params(paramReason), handle: (*Server).putSnapshot},
		{method: "GET", path: "/v1/cluster", class: classVital, permission: permOperatorRead, handle: (*Server).getCluster},
		{method: "POST", path: "/v1/cluster/leader", class: classVital, permission: permOperatorWrite, params: params(paramTimeout), handle: (*Server).postLeader},
		{method: "GET", path: governor, class: classVital, permission: permOperatorRead, handle: (*Server).getGovernor},
		{method: "PUT", path: governor, class: classVital, permission: permOperatorWrite, params: params(paramTimeout, paramReason), handle: (*Server).putGovernor},
		{method: "DELETE", path: "/v1/cluster/members/{id}", class: classVital, permission: permOperatorWrite, params: params(paramTimeout), handle: (*Server).deleteMember},

		{method: "GET", path: logLevel, class: classVital, permission: permOperatorRead, handle: (*Server).getLogLevel},
		{method: "PUT", path: logLevel, class: classVital, permission: permOperatorWrite, params: params(paramReason), handle: (*Server).putLogLevel},
		{method: "DELETE", path: logLevel, class: classVital, permission: permOperatorWrite, params: params(paramReason), handle: (*Server).deleteLogLevel},

		{method: "GET", path: "/v1/limits", class: classVital, permission: permPublic, handle: (*Server).getLimits},
		{method: "GET", path: "/v1/version", class: classVital, permission: permPublic, handle: (*Server).getVersion},
		{method: "GET", path: "/v1/openapi.yaml", class: classVital, permission: permPublic, handle: (*Server).getDescription},
		{method: "GET", path: "/livez", class: classVital, permission: permPublic, handle: (*Server).getLive},
		{method: "GET", path: "/readyz", class: classVital, permission: permPublic, params: params(paramRequire, paramVerbose), handle: (*Server).getReady},
		{method: "GET", path: "/healthz", class: classVital, permission: permPublic, params: params(paramRequire, paramVerbose), handle: (*Server).getReady},
		{method: "GET", path: "/metrics", class: classScrape, permission: permOperatorRead, handle: (*Server).getMetrics},
	}
}

// table finds the route of a request.
type table struct {
	router *mux.Router
	rows   map[*mux.Route]*route
	// paths matches every path of the table whatever the method, for what may be
	// answered to a method that is not there.
	paths *mux.Router
	allow map[*mux.Route]string
}

func newTable(routes []*route) (*table, error) {
	// Flat, because subrouters of gorilla/mux answer 404 where 405 is due, and not
	// cleaned, because it cleans by redirecting.
	t := &table{
		router: mux.NewRouter().SkipClean(true), rows: map[*mux.Route]*route{},
		paths: mux.NewRouter().SkipClean(true), allow: map[*mux.Route]string{},
	}
	byPath := map[string]*mux.Route{}
	for _, row := range routes {
		if row.permission == "" || row.class == 0 || row.handle == nil {
			return nil, fmt.Errorf("httpapi: route %s %s has no permission, no class or no handler", row.method, row.path)
		}
		methods := []string{row.method}
		if row.method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
		// The handler is never called: find only asks which row matches.
		r := t.router.Path(row.path).Methods(methods...).Handler(http.NotFoundHandler())
		if err := r.GetError(); err != nil {
			return nil, fmt.Errorf("httpapi: route %s %s: %w", row.method, row.path, err)
		}
		t.rows[r] = row
		p := byPath[row.path]
		if p == nil {
			p = t.paths.Path(row.path).Handler(http.NotFoundHandler())
			byPath[row.path] = p
			t.allow[p] = http.MethodOptions
		}
		for _, m := range methods {
			t.allow[p] += ", " + m
		}
	}
	return t, nil
}

// find matches c's request. It asks the router for a match instead of letting it
// serve, which would copy the request twice to hang variables on its context.
func (t *table) find(c *call) error {
	var m mux.RouteMatch
	if t.router.Match(c.r, &m) && m.MatchErr == nil {
		c.route, c.path = t.rows[m.Route], m.Vars
		return nil
	}
	m = mux.RouteMatch{}
	if !t.paths.Match(c.r, &m) || m.MatchErr != nil {
		return muster.Errorf(muster.CodeNotFound, "there is no such route").WithHint("GET /v1/openapi.yaml describes them all")
	}
	allow := t.allow[m.Route]
	c.set(headerAllow, allow)
	if c.r.Method == http.MethodOptions {
		return nil
	}
	return muster.Errorf(muster.CodeMethodNotAllowed, "this route does not take the method").WithHint("it takes %s", allow)
}
