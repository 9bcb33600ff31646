package muster

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// The strategies by which one instance of a service is chosen. Package balancer
// carries them out.
const (
	StrategyRoundRobin         = "round_robin"
	StrategyWeightedRoundRobin = "weighted_round_robin"
	StrategyRandom             = "random"
	StrategyWeightedRandom     = "weighted_random"
	StrategyLeastRequest       = "least_request"
	StrategyEWMA               = "ewma"
	StrategyConsistentHash     = "consistent_hash"
	StrategyBoundedHash        = "bounded_hash"
	StrategyRendezvous         = "rendezvous"
)

var strategyNames = []string{
	StrategyRoundRobin, StrategyWeightedRoundRobin, StrategyRandom, StrategyWeightedRandom, StrategyLeastRequest,
	StrategyEWMA, StrategyConsistentHash, StrategyBoundedHash, StrategyRendezvous,
}

// StrategyNames returns the names of all strategies.
func StrategyNames() []string { return slices.Clone(strategyNames) }

// InvalidStrategy is the error of a name that is no strategy's.
func InvalidStrategy(name string) *Error {
	return Errorf(CodeInvalidStrategy, "%q is not a strategy", clip(name)).
		WithHint("use one of %s", strings.Join(strategyNames, ", "))
}

// The bounds of a service's settings.
const (
	MinEjectionTime        = time.Second
	MaxEjectionTime        = 5 * time.Minute
	MaxSlowStart           = time.Hour
	MaxConsecutiveFailures = 1000
	MinLoadFactor          = 105 // percent
	MaxLoadFactor          = 1000
)

// Settings say how the instances of one service are chosen and protected. They
// are the same on all nodes and in all clients. Shares are whole percents. Whoever
// decodes Settings starts from DefaultSettings, so that what is left out keeps its
// default and a 0 is a 0.
type Settings struct {
	// Strategy is used where a request names none.
	Strategy string `json:"strategy"`
	// PanicThreshold: while fewer than this share of the instances can be picked,
	// what is known of their health is not believed and picks come from all that
	// may be alive. 0 never panics.
	PanicThreshold int `json:"panic_threshold"`
	// ZoneThreshold: a preferred zone gets all picks while at least this share of
	// its capacity can be picked, and proportionally less below. 0 never spills
	// over while the zone has anyone.
	ZoneThreshold int `json:"zone_threshold"`
	// MaxEjected is the most of the service that may be ejected at once for
	// failing; 0 ejects nobody.
	MaxEjected int `json:"max_ejected"`
	// ConsecutiveFailures ejects an instance after that many failures in a row; 0
	// turns the rule off.
	ConsecutiveFailures int `json:"consecutive_failures"`
	// FailureRate ejects an instance when that share of its latest outcomes are
	// failures; 0 turns the rule off.
	FailureRate int `json:"failure_rate"`
	// EjectionTime is how long the first ejection lasts. Each one that follows
	// soon lasts twice as long, up to MaxEjectionTime.
	EjectionTime Duration `json:"ejection_time"`
	// SlowStart is how long an instance takes from its start to its full weight, in
	// the strategies that use weights; 0 is at once.
	SlowStart Duration `json:"slow_start"`
	// LoadFactor is how far the requests in flight on one instance may exceed its
	// fair share before bounded_hash passes it over: 125 is a quarter more.
	LoadFactor int `json:"load_factor"`
	// Protect lets the expiry governor hold instances of the service instead of
	// removing them in a mass loss.
	Protect bool `json:"protect"`
}

// DefaultSettings returns the settings of a service that has none of its own.
func DefaultSettings() Settings {
	return Settings{
		Strategy: StrategyRoundRobin, PanicThreshold: 50, ZoneThreshold: 70, MaxEjected: 50,
		ConsecutiveFailures: 5, FailureRate: 33, EjectionTime: Duration(10 * time.Second),
		LoadFactor: 125, Protect: true,
	}
}

// Validate reports everything that is wrong with s in one *Error.
func (s *Settings) Validate() error {
	var f faults
	if !slices.Contains(strategyNames, s.Strategy) {
		f.addErr("/strategy", InvalidStrategy(s.Strategy))
	}
	whole := func(pointer string, n, low, high int) {
		if n < low || n > high {
			f.add(pointer, CodeConflictingField, fmt.Sprintf("%d is not between %d and %d", n, low, high))
		}
	}
	whole("/panic_threshold", s.PanicThreshold, 0, 100)
	whole("/zone_threshold", s.ZoneThreshold, 0, 100)
	whole("/max_ejected", s.MaxEjected, 0, 100)
	whole("/consecutive_failures", s.ConsecutiveFailures, 0, MaxConsecutiveFailures)
	whole("/failure_rate", s.FailureRate, 0, 100)
	whole("/load_factor", s.LoadFactor, MinLoadFactor, MaxLoadFactor)
	span := func(pointer string, d Duration, low, high time.Duration) {
		if time.Duration(d) < low || time.Duration(d) > high {
			f.add(pointer, CodeInvalidDuration, fmt.Sprintf("%s is not between %s and %s", d, low, high))
		}
	}
	span("/ejection_time", s.EjectionTime, MinEjectionTime, MaxEjectionTime)
	span("/slow_start", s.SlowStart, 0, MaxSlowStart)
	return f.err()
}
