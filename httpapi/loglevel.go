package httpapi

import (
	"cmp"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/muster-registry/muster"
)

// LogLevels is what the routes ask of whoever decides what the node logs. Both
// methods are called concurrently.
type LogLevels interface {
	LogLevel() muster.LogLevel
	// SetLogLevel sets one of muster.LogLevels, for that long; 0: until it is set
	// again. "" is the level the node was started with.
	SetLogLevel(level string, hold time.Duration)
}

// getLogLevel answers GET /v1/node/log-level, of the node that is asked.
func (s *Server) getLogLevel(c *call) error { return s.logLevel(c) }

func (s *Server) logLevel(c *call) error {
	level := s.deps.LogLevels.LogLevel()
	level.Node = s.cluster.ID()
	return c.json(http.StatusOK, level)
}

// logLevelRequest is the body of PUT /v1/node/log-level.
type logLevelRequest struct {
	Level string          `json:"level"`
	For   muster.Duration `json:"for"`
}

// putLogLevel answers PUT /v1/node/log-level. The log says by whom it was set.
func (s *Server) putLogLevel(c *call) error {
	var req logLevelRequest
	if err := c.decode(&req, muster.MaxBodyBytes); err != nil {
		return err
	}
	if !slices.Contains(muster.LogLevels, req.Level) {
		return &muster.Error{
			Code: muster.CodeConflictingField, Detail: "the body does not name a level", Hint: "level is one of " + strings.Join(muster.LogLevels, ", "),
			Fields: []muster.FieldError{{Pointer: "/level", Detail: "is none of " + strings.Join(muster.LogLevels, ", ")}},
		}
	}
	hold := time.Duration(req.For)
	if hold != 0 && (hold < muster.MinLogLevelFor || hold > muster.MaxLogLevelFor) {
		return &muster.Error{
			Code: muster.CodeInvalidDuration, Detail: "a level is set for 1s to 24h", Hint: `leave "for" out to set it until it is set again`,
			Fields: []muster.FieldError{{Pointer: "/for", Detail: "is not between 1s and 24h"}},
		}
	}
	return s.setLogLevel(c, req.Level, hold)
}

// deleteLogLevel answers DELETE /v1/node/log-level: the level the node was started
// with holds again.
func (s *Server) deleteLogLevel(c *call) error { return s.setLogLevel(c, "", 0) }

func (s *Server) setLogLevel(c *call, level string, hold time.Duration) error {
	who, err := c.caller()
	if err != nil {
		return err
	}
	// Whichever of the two levels writes more tells of the change.
	told := s.log.Enabled(c.r.Context(), slog.LevelWarn)
	tell := func() {
		s.log.Warn("log level set", "log_level", cmp.Or(level, s.deps.LogLevels.LogLevel().Configured), "duration", hold, "actor", who.Actor, "reason", who.Reason, c.ids())
	}
	if told {
		tell()
	}
	s.deps.LogLevels.SetLogLevel(level, hold)
	if !told {
		tell()
	}
	return s.logLevel(c)
}
