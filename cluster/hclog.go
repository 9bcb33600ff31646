package cluster

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLogger lets raft log through slog, two levels quieter than it means: what
// raft calls an error is mostly a peer that does not answer, which raft itself
// puts up with. Our own lines say what an operator has to know.
type raftLogger struct {
	logger *slog.Logger
	name   string
	args   []any
}

func newRaftLogger(l *slog.Logger) hclog.Logger { return &raftLogger{logger: l, name: "raft"} }

// Log implements hclog.Logger.
func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	all := append(make([]any, 0, 2+len(args)), "text", msg)
	for _, a := range args {
		if f, ok := a.(hclog.Format); ok {
			a = lateFormat(f)
		}
		all = append(all, a)
	}
	const line = "raft says"
	switch level {
	case hclog.Error:
		l.logger.Info(line, all...)
	case hclog.Warn, hclog.Info:
		l.logger.Debug(line, all...)
	}
}

// lateFormat formats only if the line is written.
type lateFormat hclog.Format

// LogValue implements slog.LogValuer.
func (f lateFormat) LogValue() slog.Value {
	if len(f) == 0 {
		return slog.StringValue("")
	}
	return slog.StringValue(fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...))
}

func (l *raftLogger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *raftLogger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLogger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLogger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *raftLogger) IsTrace() bool { return false }
func (l *raftLogger) IsDebug() bool { return false }
func (l *raftLogger) IsInfo() bool  { return true }
func (l *raftLogger) IsWarn() bool  { return true }
func (l *raftLogger) IsError() bool { return true }

func (l *raftLogger) ImpliedArgs() []any { return l.args }
func (l *raftLogger) Name() string       { return l.name }

// With implements hclog.Logger.
func (l *raftLogger) With(args ...any) hclog.Logger {
	return &raftLogger{logger: l.logger.With(args...), name: l.name, args: append(l.args[:len(l.args):len(l.args)], args...)}
}

// Named implements hclog.Logger.
func (l *raftLogger) Named(name string) hclog.Logger { return l.ResetNamed(l.name + "." + name) }

// ResetNamed implements hclog.Logger.
func (l *raftLogger) ResetNamed(name string) hclog.Logger {
	return &raftLogger{logger: l.logger, name: name, args: l.args}
}

// SetLevel does nothing: the level is the slog handler's.
func (l *raftLogger) SetLevel(hclog.Level) {}

// GetLevel implements hclog.Logger.
func (l *raftLogger) GetLevel() hclog.Level { return hclog.Info }

// StandardLogger implements hclog.Logger.
func (l *raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(l.StandardWriter(nil), "", 0)
}

// StandardWriter implements hclog.Logger.
func (l *raftLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return lineWriter{l.logger, "raft says"}
}

// lineWriter passes the lines of a library that only knows package log to slog,
// quieter for the same reason.
type lineWriter struct {
	logger *slog.Logger
	msg    string
}

func (w lineWriter) Write(line []byte) (int, error) {
	text := string(bytes.TrimSpace(line))
	if bytes.Contains(line, []byte("[ERR]")) {
		w.logger.Info(w.msg, "text", text)
	} else {
		w.logger.Debug(w.msg, "text", text)
	}
	return len(line), nil
}
