package httpapi

import (
	"math/rand/v2"
	"time"

	"github.com/muster-registry/muster"
)

// class is what a request is worth when there is more to do than can be done. Each
// has room of its own, so that a flood of one takes nothing from another; what is
// least needed has least of it.
type class uint8

const (
	// classVital is what keeps the registry true and its operators informed:
	// renewals, deregistrations, probes, the switches of the cluster. It is
	// never shed here: the lease keeper and the queue of proposals have bounds of
	// their own, which know what they refuse.
	classVital class = iota + 1
	// classWrite is registrations and all other writes.
	classWrite
	// classRead is reads of one service or instance, picks, and the beginning of
	// watches.
	classRead
	// classList is what reads over all services.
	classList
	// classBackup is whole backups, out and in.
	classBackup
	// classScrape is the page of metrics, which is dear to make.
	classScrape

	numClasses
)

func (c class) String() string {
	return [...]string{"none", "vital", "write", "read", "list", "backup", "scrape"}[c]
}

// waitingEach is how many may wait for every one in work.
const waitingEach = 2

// roomOf is how many requests of a class may be in work at once; 0: any number.
// Writes and reads of one service spend their time waiting for others, where they
// spend any: their bound is one of memory. Lists are work for the processor, and so
// few at once that a renewal soon finds one free.
func roomOf(c class) int {
	return [...]int{
		classWrite: muster.MaxWritesInWork, classRead: muster.MaxReadsInWork, classList: muster.MaxListsInWork,
		classBackup: muster.MaxBackupsInWork, classScrape: muster.MaxScrapesInWork,
	}[c]
}

// shed is the answer to a request that there is no room for.
func shed(c class) error {
	return muster.Errorf(muster.CodeOverloaded, "this node has as many requests of the kind %q in work as it takes on at once", c).
		WithHint("try again a little later, or ask another node").WithRetryAfter(shedRetry())
}

// shedRetry is when those who are sent away may come again, 1 to 5 s, each at another
// moment.
func shedRetry() time.Duration { return time.Second + rand.N(4*time.Second) }
