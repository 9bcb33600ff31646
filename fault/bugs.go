package fault

// Bug names a deliberate bug.
type Bug string

// The bugs there are. Bugs says what each of them does.
const (
	AckBeforeCommit      Bug = "ack-before-commit"
	NoFsync              Bug = "no-fsync"
	NoTermCheck          Bug = "no-term-check"
	CheckThenMerge       Bug = "check-then-merge"
	NoAgeRule            Bug = "no-age-rule"
	BareVerify           Bug = "bare-verify"
	CursorOffByOne       Bug = "cursor-off-by-one"
	ReplayAfterInstall   Bug = "replay-after-install"
	LostTombstone        Bug = "lost-tombstone"
	RestoreIndexBack     Bug = "restore-index-back"
	AnswerBeforeCaughtUp Bug = "answer-before-caught-up"
	NoStallGuard         Bug = "no-stall-guard"
	NoGeneration         Bug = "no-generation"
	NoOutage             Bug = "no-outage"
	RetryUnknown         Bug = "retry-unknown"
	ClientRetriesUnknown Bug = "client-retries-unknown"
	VoteTooSoon          Bug = "vote-too-soon"
	SkipsUnknown         Bug = "skips-unknown"
)

// Row describes a bug.
type Row struct {
	Bug Bug
	// Breaks is the mistake, and what comes of it.
	Breaks string
	// Promise is the one of ours that it breaks.
	Promise string
	// Caught is the tests that must fail with it; any one of them could be lost.
	Caught []Catch
}

// Catch is a test that fails when a bug is switched on.
type Catch struct {
	Room string // its folder, from the root
	Test string // as for go test -run, without anchors
	Says string // regular expression that its output matches when it fails for this reason
}

// What is promised, in the words of the rows.
const (
	durable    = "what was acknowledged is on the disks of a majority"
	current    = "a linearizable read shows every write acknowledged before it began"
	notEarly   = "a lease never ends early"
	notLate    = "a lease ends soon after its owner fell silent"
	wholeWatch = "watches are in order, without gap or repeat"
	restorable = "a snapshot is the state at one index, and a restore raises the epoch"
	steady     = "a new member does not vote before it has caught up"
	sameState  = "nodes of two versions never come to different states"
	once       = "what may have been applied is never repeated behind the caller's back"
)

// Bugs is the table of all.
var Bugs = []Row{
	{AckBeforeCommit, "an entry that only the leader has, when it loses its followers, is acknowledged", durable, []Catch{
		{"cluster", "TestCutInTheMiddleOfAWrite", `acknowledged though no follower could answer`},
	}},
	{NoFsync, "the log is acknowledged while it is in the page cache", durable, []Catch{
		{"cluster/logstore", "TestWhatIsAcknowledgedIsOnTheDisk", `pages that are not on the disk`},
	}},
	{NoTermCheck, "an entry that ends leases is applied although another leader decided it", notEarly, []Catch{
		{"fsm", "TestTranscripts/leases", `(?m)^\s*5: changed done$`},
		{"clustertest", "TestSimulationOldDecisions", `early: .* after the sending of its last acknowledged heartbeat`},
	}},
	{CheckThenMerge, "a voter reads its term before it notes a renewal: an election falls between", notEarly, []Catch{
		{"lease", "TestRenewMergesBeforeItChecks", `acknowledged a renewal that the new leader's copy lacks`},
	}},
	{NoAgeRule, "a new leader believes tables that are younger than the lease's TTL: their start passes for a heartbeat", notLate, []Catch{
		{"lease", "TestFailover", `expired .* after its TTL, want at most the outage`},
		{"lease", "TestYoungTablesCountInTimeThatCounts", `tables count for a TTL of`},
	}},
	{BareVerify, "a leader asks raft's VerifyLeader, which counts answers to what was asked before", current, []Catch{
		{"cluster", "TestDeposedLeaderIsNotBelieved", `was acknowledged, and a linearizable read does not show it`},
	}},
	{CursorOffByOne, "a stream that is resumed begins one index too late", wholeWatch, []Catch{
		{"watch", "TestResumeRepeatsNothing", `got "change 3 web/updated", want "change 1 web/registered"`},
		{"watch", "TestStreamsAgreeWithTheLog", `change .*: after \d+ comes \d+`},
	}},
	{ReplayAfterInstall, "after a resync a stream goes on from the snapshot and not from the views it was sent", wholeWatch, []Catch{
		{"watch", "TestNothingIsToldTwiceAfterASnapshot", `got "change 4 web/updated", .* want nothing`},
		{"watch", "TestStreamsAgreeWithTheLog", `change .*: after \d+ comes \d+`},
	}},
	{LostTombstone, "snapshots leave out the instances that are remembered after they are gone", restorable, []Catch{
		{"fsm", "TestTombstonesSurvive", `a retry of before the snapshot was not fenced`},
	}},
	{RestoreIndexBack, "a restore takes the backup's epoch, not the larger one", restorable, []Catch{
		{"fsm", "TestRestoreOfAnOldBackup", `the index went back`},
	}},
	{AnswerBeforeCaughtUp, "a node that has just started answers from what it has", current, []Catch{
		{"cluster", "TestRestartOfAll", `a node alone is ready after a restart`},
		{"clustertest", "TestCatchingUp", `on a lone restarted node: got (200|404)`},
	}},
	{NoStallGuard, "time in which a node did not run counts against leases", notEarly, []Catch{
		{"lease", "TestAllPaused", `lease \S+ (ended \S+ after the pause|whose owner died: ended false)`},
		{"lease", "TestTableSettlesStalls", `a stall: age 1.501s and 0 stalls`},
	}},
	{NoGeneration, "an entry ends a lease that was registered again since it was decided", notEarly, []Catch{
		{"fsm", "TestTranscripts/leases", `(?m)^\s*4: changed done$`},
		{"clustertest", "TestSimulationOldDecisions", `early: .* after the sending of its last acknowledged heartbeat`},
	}},
	{NoOutage, "time in which nobody led counts against leases", notEarly, []Catch{
		{"lease", "TestOutageIsToldOn", `ended that its owner had not had a TTL to renew in`},
		{"clustertest", "TestSimulationTwoFailovers", `lost: .* though its owner kept beating`},
	}},
	{RetryUnknown, "a node repeats a write whose answer from the leader was lost", once, []Catch{
		{"cluster", "TestLostAnswerIsNotAskedForAgain", `was applied 2 times`},
	}},
	{ClientRetriesUnknown, "the SDK repeats a POST that may have been carried out", once, []Catch{
		{"client", "TestNobodyAnswers", `a POST whose outcome is unknown was sent \d+ times`},
	}},
	{VoteTooSoon, "a learner is given its vote while it lags", steady, []Catch{
		{"cluster", "TestNextChange/nor while it lags", `next is "give a vote" of "d" .*, want "" of ""`},
	}},
	{SkipsUnknown, "a node passes over an operation that only a newer version knows", sameState, []Catch{
		{"fsm", "TestUnknownKinds/operation", `stopped by \[\], want "upgrade this node" at index 2`},
	}},
}

// Find returns the row of the bug with that name, nil if there is none.
func Find(name string) *Row {
	for i := range Bugs {
		if string(Bugs[i].Bug) == name {
			return &Bugs[i]
		}
	}
	return nil
}

// Names is the names of all bugs.
func Names() []string {
	names := make([]string, len(Bugs))
	for i := range Bugs {
		names[i] = string(Bugs[i].Bug)
	}
	return names
}
