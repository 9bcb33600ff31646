package muster

import "time"

// The limits of a request and of what it may register. They are part of the
// contract, and GET /v1/limits shows them.
const (
	MaxNameLen         = 128      // bytes of a namespace, service or instance id
	MaxHostLen         = 253      // bytes of a host name
	MaxTags            = 64       // tags an instance
	MaxTagLen          = 128      // bytes a tag
	MaxMetaPairs       = 64       // metadata pairs an instance
	MaxMetaKeyLen      = 128      // bytes a metadata key
	MaxMetaValueLen    = 1 << 10  // bytes a metadata value
	MaxMetaBytes       = 16 << 10 // bytes of all keys and values together
	MaxPorts           = 64       // named ports an instance
	MaxChecks          = 16       // checks an instance
	MaxWeight          = 65535
	MaxReasonLen       = 256      // bytes of ?reason= and of an override's reason
	MaxActorLen        = 128      // bytes of an actor
	MaxBodyBytes       = 64 << 10 // a body that names one thing
	MaxBatchBytes      = 1 << 20  // a batch
	MaxBatchItems      = 500      // instances a batch
	MaxHeartbeatItems  = 1000     // leases or instances a batch of heartbeats
	MaxURIBytes        = 8 << 10  // path and query
	MaxHeaderBytes     = 32 << 10
	MaxJSONDepth       = 16
	MaxFilterLen       = 1 << 10 // bytes of a filter expression
	MaxInstances       = 10_000  // instances a service
	MaxServices        = 10_000  // services a cluster
	MaxEvents          = 1000    // events an answer of the journal
	MaxPicks           = 100     // instances a pick
	MaxRequestIDLen    = 64
	MaxSnapshotBytes   = 256 << 20 // a backup that is restored
	MaxCheckOutputLen  = 256
	MaxIncarnation     = 1<<53 - 1
	DefaultWeight      = 100
	DefaultEventsLimit = 100
	// DefaultStreamsPerAddress is how many streams an address may have open on a
	// node, unless the node is told otherwise; loopback may have any number.
	DefaultStreamsPerAddress = 1024
	// DefaultConnectionsPerAddress is the same of connections that carry no stream.
	DefaultConnectionsPerAddress = 512
	// MaxConnections is how many connections clients may have to a node. One that may
	// not open as many files takes fewer.
	MaxConnections = 50_000
	// MaxWritesInWork and what follows are how many requests of a class a node works
	// on at once, what only waits or is being sent not counted.
	MaxWritesInWork  = 2048
	MaxReadsInWork   = 1024
	MaxListsInWork   = 4
	MaxBackupsInWork = 4
	MaxScrapesInWork = 4
	// MaxSlowBodies is how many requests of a class a node waits for whose bodies take
	// longer than SlowBodyAfter.
	MaxSlowBodies = 256
	// MaxApplyGap is how many entries of the log a node may be behind before it
	// refuses registrations.
	MaxApplyGap = 5000
)

// The limits of times.
const (
	MinTTL             = time.Second
	MaxTTL             = 24 * time.Hour
	DefaultTTL         = 15 * time.Second
	DefaultRemoveAfter = 10 * time.Minute
	MaxRemoveAfter     = 30 * 24 * time.Hour
	DefaultWait        = time.Minute
	MaxWait            = 10 * time.Minute
	DefaultTimeout     = 5 * time.Second
	MaxTimeout         = time.Minute
	MaxMinIndexWait    = 5 * time.Second
	DefaultTicketTTL   = 30 * time.Second
	MaxTicketTTL       = 10 * time.Minute
	MinCheckInterval   = time.Second
	MaxCheckInterval   = time.Hour
	DefaultInterval    = 5 * time.Second
	DefaultCheckWait   = 2 * time.Second
	DefaultFall        = 3
	DefaultRise        = 1
	MaxFallRise        = 100
	// AdmissionWait is how long a request waits for room in its class: longer, and its
	// caller is better off with another node.
	AdmissionWait = 250 * time.Millisecond
	// HeaderTimeout, SlowBodyAfter, BodyTimeout, WriteTimeout and IdleTimeout are how
	// long a client may take to send a head, to send a body while it has a place, to send
	// it at all, to accept a piece of an answer, and to send the next request.
	HeaderTimeout = 5 * time.Second
	SlowBodyAfter = 250 * time.Millisecond
	BodyTimeout   = 10 * time.Second
	WriteTimeout  = 10 * time.Second
	IdleTimeout   = time.Minute
	// MaxProposalWait is how long operations may wait to be proposed, more of them
	// than one log entry holds, before the leader refuses registrations;
	// MaxProposalStall, how long few of them may.
	MaxProposalWait  = 250 * time.Millisecond
	MaxProposalStall = time.Second
)

// Limits is what GET /v1/limits shows. Sizes are bytes.
type Limits struct {
	NameBytes           int `json:"name_bytes"`
	HostBytes           int `json:"host_bytes"`
	Tags                int `json:"tags"`
	TagBytes            int `json:"tag_bytes"`
	MetaPairs           int `json:"meta_pairs"`
	MetaKeyBytes        int `json:"meta_key_bytes"`
	MetaValueBytes      int `json:"meta_value_bytes"`
	MetaBytes           int `json:"meta_bytes"`
	Ports               int `json:"ports"`
	Checks              int `json:"checks"`
	Weight              int `json:"weight"`
	ReasonBytes         int `json:"reason_bytes"`
	BodyBytes           int `json:"body_bytes"`
	BatchBytes          int `json:"batch_bytes"`
	BatchItems          int `json:"batch_items"`
	HeartbeatItems      int `json:"heartbeat_items"`
	URIBytes            int `json:"uri_bytes"`
	HeaderBytes         int `json:"header_bytes"`
	JSONDepth           int `json:"json_depth"`
	FilterBytes         int `json:"filter_bytes"`
	InstancesPerService int `json:"instances_per_service"`
	Services            int `json:"services"`
	EventsPerAnswer     int `json:"events_per_answer"`
	RequestIDBytes      int `json:"request_id_bytes"`
	StreamsPerAddress   int `json:"streams_per_address"`
	// ConnectionsPerAddress and Connections are those that clients may have open.
	ConnectionsPerAddress int `json:"connections_per_address"`
	Connections           int `json:"connections"`
	// WritesInWork and what follows are how many requests of a class a node works on
	// at once.
	WritesInWork  int `json:"writes_in_work"`
	ReadsInWork   int `json:"reads_in_work"`
	ListsInWork   int `json:"lists_in_work"`
	BackupsInWork int `json:"backups_in_work"`
	ScrapesInWork int `json:"scrapes_in_work"`
	// SlowBodies are those, of a class, that take longer than SlowBodyAfter.
	SlowBodies int `json:"slow_bodies"`
	// AdmissionWait is how long a request waits for room; the other times are those
	// that a client may take.
	AdmissionWait Duration `json:"admission_wait"`
	HeaderTimeout Duration `json:"header_timeout"`
	SlowBodyAfter Duration `json:"slow_body_after"`
	BodyTimeout   Duration `json:"body_timeout"`
	WriteTimeout  Duration `json:"write_timeout"`
	IdleTimeout   Duration `json:"idle_timeout"`
	// ApplyGap is in log entries; the other two are how long an operation waits to be
	// proposed. Beyond them registrations are refused.
	ApplyGap         int      `json:"apply_gap"`
	ProposalWait     Duration `json:"proposal_wait"`
	ProposalStall    Duration `json:"proposal_stall"`
	SnapshotBytes    int      `json:"snapshot_bytes"`
	InstancesPerPick int      `json:"instances_per_pick"`
	MinTTL           Duration `json:"min_ttl"`
	MaxTTL           Duration `json:"max_ttl"`
	DefaultTTL       Duration `json:"default_ttl"`
	MaxRemoveAfter   Duration `json:"max_remove_after"`
	DefaultWait      Duration `json:"default_wait"`
	MaxWait          Duration `json:"max_wait"`
	DefaultTimeout   Duration `json:"default_timeout"`
	MaxTimeout       Duration `json:"max_timeout"`
	DefaultTicketTTL Duration `json:"default_ticket_ttl"`
	MaxTicketTTL     Duration `json:"max_ticket_ttl"`
	MinCheckInterval Duration `json:"min_check_interval"`
	MaxCheckInterval Duration `json:"max_check_interval"`
	MaxMinIndexWait  Duration `json:"max_min_index_wait"`
}

// CurrentLimits returns the limits this build enforces, those that a node can be
// told otherwise at their defaults.
func CurrentLimits() Limits {
	return Limits{
		NameBytes: MaxNameLen, HostBytes: MaxHostLen,
		Tags: MaxTags, TagBytes: MaxTagLen,
		MetaPairs: MaxMetaPairs, MetaKeyBytes: MaxMetaKeyLen, MetaValueBytes: MaxMetaValueLen, MetaBytes: MaxMetaBytes,
		Ports: MaxPorts, Checks: MaxChecks, Weight: MaxWeight, ReasonBytes: MaxReasonLen,
		BodyBytes: MaxBodyBytes, BatchBytes: MaxBatchBytes, BatchItems: MaxBatchItems, HeartbeatItems: MaxHeartbeatItems,
		URIBytes: MaxURIBytes, HeaderBytes: MaxHeaderBytes, JSONDepth: MaxJSONDepth, FilterBytes: MaxFilterLen,
		InstancesPerService: MaxInstances, Services: MaxServices, EventsPerAnswer: MaxEvents, RequestIDBytes: MaxRequestIDLen, InstancesPerPick: MaxPicks,
		StreamsPerAddress:     DefaultStreamsPerAddress,
		ConnectionsPerAddress: DefaultConnectionsPerAddress, Connections: MaxConnections,
		WritesInWork: MaxWritesInWork, ReadsInWork: MaxReadsInWork, ListsInWork: MaxListsInWork, BackupsInWork: MaxBackupsInWork, ScrapesInWork: MaxScrapesInWork,
		SlowBodies: MaxSlowBodies, AdmissionWait: Duration(AdmissionWait),
		HeaderTimeout: Duration(HeaderTimeout), SlowBodyAfter: Duration(SlowBodyAfter), BodyTimeout: Duration(BodyTimeout),
		WriteTimeout: Duration(WriteTimeout), IdleTimeout: Duration(IdleTimeout),
		ApplyGap: MaxApplyGap, ProposalWait: Duration(MaxProposalWait), ProposalStall: Duration(MaxProposalStall),
		SnapshotBytes: MaxSnapshotBytes,
		MinTTL:        Duration(MinTTL), MaxTTL: Duration(MaxTTL), DefaultTTL: Duration(DefaultTTL), MaxRemoveAfter: Duration(MaxRemoveAfter),
		DefaultWait: Duration(DefaultWait), MaxWait: Duration(MaxWait),
		DefaultTimeout: Duration(DefaultTimeout), MaxTimeout: Duration(MaxTimeout),
		DefaultTicketTTL: Duration(DefaultTicketTTL), MaxTicketTTL: Duration(MaxTicketTTL),
		MinCheckInterval: Duration(MinCheckInterval), MaxCheckInterval: Duration(MaxCheckInterval),
		MaxMinIndexWait: Duration(MaxMinIndexWait),
	}
}
