package fault

// Bug names a deliberate bug.
type Bug string

// The bugs there are. Bugs says what each of them does.
const (
	NoTermCheck Bug = "no-term-check"
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

// Bugs is the table of all.
var Bugs = []Row{
	{NoTermCheck, "an entry that ends leases is applied although another leader decided it", "a lease never ends early",
		[]Catch{
			{"fsm", "TestTranscripts/leases", `(?m)^\s*5: changed done$`},
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
