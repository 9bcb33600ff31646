package chaos

// faults is every fault there is. The plan of a run goes through all of them that can
// be had, in an order by chance, and again.
var faults = []row{
	{name: "kill-leader", hold: [2]float64{0, 4}, died: true, inject: kill(true)},
	{name: "kill-follower", hold: [2]float64{0, 4}, died: true, inject: kill(false)},
	{name: "kill-leaders", died: true, inject: killLeaders},
	{name: "kill-all", hold: [2]float64{0, 2}, died: true, stall: true, inject: killAll},
	{name: "pause-leader", hold: [2]float64{1, 10}, inject: halt(true)},
	{name: "pause-follower", hold: [2]float64{1, 10}, inject: halt(false)},
	{name: "pause-all", hold: [2]float64{5, 12}, stall: true, inject: haltAll},
	{name: "pause-blink", inject: blink},

	{name: "cut-leader", need: needsNetwork, hold: [2]float64{3, 10}, inject: cut(true, both)},
	{name: "cut-follower", need: needsNetwork, hold: [2]float64{3, 10}, inject: cut(false, both)},
	{name: "cut-all", need: needsNetwork, hold: [2]float64{3, 8}, stall: true, inject: cutAll},
	{name: "deaf-leader", need: needsNetwork, hold: [2]float64{3, 10}, inject: cut(true, inward)},
	{name: "mute-leader", need: needsNetwork, hold: [2]float64{3, 10}, inject: cut(true, outward)},
	{name: "cut-link-leader", need: needsNetwork, hold: [2]float64{3, 10}, inject: cutLink(true)},
	{name: "cut-link-followers", need: needsNetwork, hold: [2]float64{3, 10}, inject: cutLink(false)},
	{name: "half-link", need: needsNetwork, hold: [2]float64{3, 10}, inject: halfLink},
	{name: "dial-only", need: needsNetwork, hold: [2]float64{3, 10}, inject: dialOnly},
	{name: "flap-leader", need: needsNetwork, inject: flapLeader},
	{name: "loss", need: needsNetwork, hold: [2]float64{5, 10}, inject: loss("tcp", "udp")},
	{name: "loss-tcp", need: needsNetwork, hold: [2]float64{5, 10}, inject: loss("tcp")},
	{name: "loss-udp", need: needsNetwork, hold: [2]float64{5, 10}, inject: loss("udp")},
	{name: "slow-link", need: needsNetwork, hold: [2]float64{5, 10}, inject: slowLink},

	{name: "slow-disk", hold: [2]float64{4, 8}, inject: slowDisk},
	{name: "stuck-disk", died: true, inject: stuckDisk},
	{name: "failed-disk", died: true, inject: failedDisk},
	{name: "full-disk", need: needsSmallDisk, hold: [2]float64{5, 10}, inject: fullDisk},
	{name: "flipped-byte", died: true, inject: flippedByte},
	{name: "wiped", died: true, inject: wiped},

	{name: "replace", died: true, inject: replace},
	{name: "grow", died: true, inject: grow},
	{name: "snapshot-install", need: needsNetwork, inject: snapshotInstall},
	{name: "restore", inject: restore},

	{name: "loss+kill-leader", need: needsNetwork, hold: [2]float64{2, 6}, died: true, inject: together(loss("tcp", "udp"), kill(true))},
	{name: "loss+pause-leader", need: needsNetwork, hold: [2]float64{2, 6}, inject: together(loss("tcp", "udp"), halt(true))},
	{name: "loss+replace", need: needsNetwork, died: true, inject: together(loss("tcp", "udp"), replace)},
	{name: "slow-disk+cut-leader", need: needsNetwork, hold: [2]float64{3, 8}, inject: together(slowDisk, cut(true, both))},
}

// snapshots makes the log that is kept short enough for an installation of a snapshot
// to be a thing of seconds; see fault.Snapshots. Who was away for installAfter entries
// and installTaken snapshots of the leader surely needs one: the log is kept back to the
// older of two snapshots, and 100 entries.
const (
	snapshots    = "2s 60 100"
	installAfter = 250
	installTaken = 4
)
