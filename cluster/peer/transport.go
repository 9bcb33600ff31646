package peer

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	defaultRaftTimeout = 2 * time.Second
	defaultRaftPool    = 3
)

// TransportConfig is what a Transport is made from. Every field may be left
// empty.
type TransportConfig struct {
	Logger hclog.Logger
	// Timeout bounds a dial and an RPC of raft; 2 s if 0.
	Timeout time.Duration
	// MaxPool is how many idle connections are kept to each peer; 3 if 0.
	MaxPool int
	// HeartbeatGate is asked before every outgoing AppendEntries, and its error
	// keeps the request back. Heartbeats are not the only ones that keep a
	// follower from electing another leader: replication sends empty requests
	// too, also while the leader's own log hangs.
	HeartbeatGate func() error
	// Appended is told of every AppendEntries of raft's that succeeded; it must not
	// block or keep args' entries. nil: nobody is.
	Appended func(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest)
}

// Transport is raft's network transport over a Port, with these differences:
//   - heartbeats take the way of all other requests through raft's main loop. On
//     the way of their own they can raise the term while the main loop appends;
//   - requests are not pipelined: a pipeline can get stuck after a rejection;
//   - a request goes to the server it is meant for or nowhere: the id is checked
//     when dialling, so that a wiped node does not answer for the one it was;
//   - a request can be injected as if a peer had sent it.
type Transport struct {
	inner    *raft.NetworkTransport
	gate     func() error
	appended func(raft.ServerID, raft.ServerAddress, *raft.AppendEntriesRequest)
	rpcs     chan raft.RPC

	closeOnce sync.Once
	closed    chan struct{}
}

// Raft looks for these by type assertion, and without the first it turns
// pre-vote off without a word.
var (
	_ raft.Transport   = (*Transport)(nil)
	_ raft.WithPreVote = (*Transport)(nil)
	_ raft.WithClose   = (*Transport)(nil)
)

// NewTransport makes the transport and, raft's own being made that way, begins to
// take raft connections from the port at once; Close ends that. Requests reach
// raft while Run runs.
func NewTransport(p *Port, cfg TransportConfig) *Transport {
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultRaftTimeout
	}
	if cfg.MaxPool <= 0 {
		cfg.MaxPool = defaultRaftPool
	}
	if cfg.HeartbeatGate == nil {
		cfg.HeartbeatGate = func() error { return nil }
	}
	if cfg.Appended == nil {
		cfg.Appended = func(raft.ServerID, raft.ServerAddress, *raft.AppendEntriesRequest) {}
	}
	return &Transport{
		inner: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Logger: cfg.Logger, Stream: p.StreamLayer(),
			MaxPool: cfg.MaxPool, MaxRPCsInFlight: 1, Timeout: cfg.Timeout,
		}),
		gate: cfg.HeartbeatGate, appended: cfg.Appended, rpcs: make(chan raft.RPC), closed: make(chan struct{}),
	}
}

// Run passes requests of peers on to Consumer until ctx ends or the transport is
// closed.
func (t *Transport) Run(ctx context.Context) error {
	for {
		select {
		case rpc := <-t.inner.Consumer():
			select {
			case t.rpcs <- rpc:
			case <-ctx.Done():
				return nil
			case <-t.closed:
				return nil
			}
		case <-ctx.Done():
			return nil
		case <-t.closed:
			return nil
		}
	}
}

// Inject gives raft a request as if a peer had sent it. RespChan must have room
// for the answer.
func (t *Transport) Inject(ctx context.Context, rpc raft.RPC) error {
	select {
	case <-t.closed:
		return raft.ErrTransportShutdown
	default:
	}
	select {
	case t.rpcs <- rpc:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-t.closed:
		return raft.ErrTransportShutdown
	}
}

// Consumer returns the channel raft takes requests from.
func (t *Transport) Consumer() <-chan raft.RPC { return t.rpcs }

// LocalAddr returns the advertised peer address.
func (t *Transport) LocalAddr() raft.ServerAddress { return t.inner.LocalAddr() }

// SetHeartbeatHandler does nothing; see Transport.
func (t *Transport) SetHeartbeatHandler(func(raft.RPC)) {}

// AppendEntriesPipeline reports that there is none; see Transport.
func (t *Transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	return t.inner.AppendEntriesPipeline(id, exactly(id, target))
}

// AppendEntries sends entries, or a heartbeat, unless the gate is shut.
func (t *Transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if err := t.gate(); err != nil {
		return err
	}
	err := t.inner.AppendEntries(id, exactly(id, target), args, resp)
	if err == nil && resp.Success {
		t.appended(id, target, args)
	}
	return err
}

// TellCommit sends an AppendEntries that raft did not ask for: args has no entries
// and says what is committed.
func (t *Transport) TellCommit(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest) error {
	if err := t.gate(); err != nil {
		return err
	}
	var resp raft.AppendEntriesResponse
	return t.inner.AppendEntries(id, exactly(id, target), args, &resp)
}

// RequestVote asks for a vote.
func (t *Transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.inner.RequestVote(id, exactly(id, target), args, resp)
}

// RequestPreVote asks whether a vote would be given.
func (t *Transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.inner.RequestPreVote(id, exactly(id, target), args, resp)
}

// InstallSnapshot sends a snapshot.
func (t *Transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return t.inner.InstallSnapshot(id, exactly(id, target), args, resp, data)
}

// TimeoutNow hands leadership over.
func (t *Transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.inner.TimeoutNow(id, exactly(id, target), args, resp)
}

// EncodePeer returns the address as it travels to other nodes.
func (t *Transport) EncodePeer(id raft.ServerID, addr raft.ServerAddress) []byte {
	return t.inner.EncodePeer(id, addr)
}

// DecodePeer undoes EncodePeer.
func (t *Transport) DecodePeer(b []byte) raft.ServerAddress { return t.inner.DecodePeer(b) }

// Close closes the transport for good; raft does it when it shuts down.
func (t *Transport) Close() error {
	t.closeOnce.Do(func() { close(t.closed) })
	err := t.inner.Close()
	t.inner.CloseStreams() // the idle connections, which Close leaves open
	return err
}

// exactly names the server in its address, for the stream layer to check.
func exactly(id raft.ServerID, target raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(At(string(id), string(target)))
}
