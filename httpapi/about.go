package httpapi

import (
	_ "embed"
	"net/http"
	"runtime"

	"github.com/muster-registry/muster"
)

// description is openapi.yaml, which describes every route of the table.
//
//go:embed openapi.yaml
var description []byte

// getLimits answers GET /v1/limits.
func (s *Server) getLimits(c *call) error {
	l := muster.CurrentLimits()
	l.StreamsPerAddress, l.ConnectionsPerAddress, l.Connections = s.cfg.StreamsPerAddress, s.cfg.ConnectionsPerAddress, s.cfg.Connections
	return c.json(http.StatusOK, l)
}

type versionAnswer struct {
	Version string `json:"version"`
	API     string `json:"api"`
	Go      string `json:"go"`
}

// getVersion answers GET /v1/version.
func (s *Server) getVersion(c *call) error {
	return c.json(http.StatusOK, versionAnswer{Version: s.cfg.Version, API: "v1", Go: runtime.Version()})
}

// getDescription answers GET /v1/openapi.yaml.
func (s *Server) getDescription(c *call) error { return c.send(http.StatusOK, typeYAML, description) }
