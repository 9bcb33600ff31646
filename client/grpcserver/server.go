package grpcserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
)

// DefaultStopTimeout is how long the calls under way are waited for at the end.
const DefaultStopTimeout = 30 * time.Second

// Config is what a Server is made from. The zero Config is ready.
type Config struct {
	// StopTimeout bounds how long Serve waits at the end for calls under way; those
	// that are left are broken off. 0 is DefaultStopTimeout, at most 1 h.
	StopTimeout time.Duration
	// OnlyRegistered answers NOT_SERVING also while the registry is away, or does not
	// have the instance yet. Where callers check health themselves, a registry that is
	// away for a ttl stops their calls then.
	OnlyRegistered bool
	// Logger is told when the health changes, and of calls that were broken off; nil
	// discards.
	Logger *slog.Logger
}

// Server is a gRPC server in the registry.
type Server struct {
	cfg      Config
	grpc     *grpc.Server
	opinions *opinions
}

// New adds the health service to a server that does not serve yet. It starts nothing;
// until Serve the health is NOT_SERVING. The error is a *muster.Error.
func New(server *grpc.Server, cfg Config) (*Server, error) {
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = DefaultStopTimeout
	}
	if cfg.StopTimeout < 0 || cfg.StopTimeout > time.Hour {
		return nil, muster.Errorf(muster.CodeConflictingField, "grpcserver: StopTimeout %s is not between 0 and 1h", cfg.StopTimeout)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	// gRPC would end the process over a second one.
	if name := grpc_health_v1.Health_ServiceDesc.ServiceName; server.GetServiceInfo()[name].Methods != nil {
		return nil, muster.Errorf(muster.CodeConflict, "the server has a service %s already", name).
			WithHint("leave it to this package, and tell it what you know by SetServing")
	}
	s := &Server{cfg: cfg, grpc: server, opinions: newOpinions()}
	grpc_health_v1.RegisterHealthServer(server, s.opinions.told)
	return s, nil
}

// SetServing tells whether a service is well, "" for the server as a whole; all of
// them are until they are said not to be. It does not look from one to the other.
func (s *Server) SetServing(service string, well bool) { s.opinions.set(service, well) }

// Serve serves until the session is over, as the package comment says, and then until
// the calls under way are answered. Where the program stops the gRPC server itself, the
// session is ended then and waited for. nil: the session ended because its context did,
// or for that.
// An error is that of the listener, while the session may go on, or that of the
// session: fenced, or what it was refused with. It is called once.
func (s *Server) Serve(l net.Listener, session *client.Session) error {
	for service := range s.grpc.GetServiceInfo() {
		s.opinions.know(service)
	}
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(l) }()
	// Following ends when the session does, whose context is the caller's; where serving
	// fails it ends before.
	ctx, leave := context.WithCancel(context.Background())
	followed := make(chan struct{})
	go func() { defer close(followed); s.follow(ctx, session) }()
	defer func() { leave(); <-followed; s.opinions.turn(false) }()
	var err error
	select {
	case err = <-served:
		if !wasStopped(err) {
			return fmt.Errorf("serving gRPC: %w", err)
		}
		session.End()
		<-session.Done()
	case <-session.Done():
		s.stop()
		err = <-served
	}
	if !wasStopped(err) {
		return fmt.Errorf("serving gRPC: %w", err)
	}
	if state, err := session.State(); err != nil {
		return fmt.Errorf("the session of %s is %s: %w", session.Key(), state, err)
	}
	return nil
}

// wasStopped tells whether a server served until Stop or GracefulStop, which others
// may call as well.
func wasStopped(err error) bool { return err == nil || errors.Is(err, grpc.ErrServerStopped) }

// follow turns the health as the session goes, until that is over.
func (s *Server) follow(ctx context.Context, session *client.Session) {
	last := client.State("")
	for {
		state, err := session.Next(ctx, last)
		if err != nil || state == last {
			return
		}
		open := isOpen(state, s.cfg.OnlyRegistered)
		s.opinions.turn(open)
		s.cfg.Logger.Info("grpc health", "state", string(state), "serving", open)
		last = state
	}
}

// stop waits for the calls under way, so long.
func (s *Server) stop() {
	done := make(chan struct{})
	go func() { defer close(done); s.grpc.GracefulStop() }()
	t := time.NewTimer(s.cfg.StopTimeout)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		s.cfg.Logger.Warn("calls were broken off: they outlasted the stop timeout", "duration", s.cfg.StopTimeout)
		s.grpc.Stop()
		<-done
	}
}
