package node

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/muster-registry/muster"
)

// LogLevel is how much a node logs, which may be changed while it runs. It is a
// slog.Leveler for the handler of the node's logger, and safe for concurrent use.
type LogLevel struct {
	level      slog.LevelVar
	configured slog.Level

	mu    sync.Mutex
	until time.Time   // guarded by mu; zero where the level is to stay
	back  *time.Timer // guarded by mu
}

// NewLogLevel makes one that begins with the configured level.
func NewLogLevel(configured slog.Level) *LogLevel {
	l := &LogLevel{configured: configured}
	l.level.Set(configured)
	return l
}

// Level implements slog.Leveler.
func (l *LogLevel) Level() slog.Level { return l.level.Level() }

// LogLevel is the level of this moment; the node is left to others.
func (l *LogLevel) LogLevel() muster.LogLevel {
	l.mu.Lock()
	defer l.mu.Unlock()
	return muster.LogLevel{Level: levelName(l.level.Level()), Configured: levelName(l.configured), Until: l.until}
}

func levelName(l slog.Level) string { return strings.ToLower(l.String()) }

// SetLogLevel sets a level by its name, for that long; 0: until it is set again. A
// name that is none is the configured level.
func (l *LogLevel) SetLogLevel(name string, hold time.Duration) {
	level := l.configured
	if name != "" && level.UnmarshalText([]byte(name)) != nil {
		level = l.configured
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.back != nil {
		l.back.Stop()
	}
	l.back, l.until = nil, time.Time{}
	l.level.Set(level)
	if hold == 0 {
		return
	}
	l.until = time.Now().Add(hold).UTC().Truncate(time.Millisecond)
	var mine *time.Timer
	mine = time.AfterFunc(hold, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.back == mine { // it was not set again meanwhile
			l.back, l.until = nil, time.Time{}
			l.level.Set(l.configured)
		}
	})
	l.back = mine
}

// lines is the handler of all that a node logs: it adds the id of the request that a
// line was caused by, where its context knows one, and leaves out what is below level.
type lines struct {
	slog.Handler
	level slog.Leveler
}

// Enabled implements slog.Handler.
func (h lines) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= h.level.Level() && h.Handler.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h lines) Handle(ctx context.Context, r slog.Record) error {
	if id := muster.RequestID(ctx); id != "" {
		r = r.Clone()
		r.AddAttrs(slog.String("request_id", id))
		if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
			r.AddAttrs(slog.String("trace_id", sc.TraceID().String()))
		}
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	return lines{h.Handler.WithAttrs(attrs), h.level}
}

// WithGroup implements slog.Handler.
func (h lines) WithGroup(name string) slog.Handler { return lines{h.Handler.WithGroup(name), h.level} }
