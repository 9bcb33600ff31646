// Package fault holds deliberate bugs, to prove that the tests find them: each is
// one branch at the place in the code where somebody could make the mistake, and
// one row of Bugs, which names the promise it breaks and the tests that must fail.
// `make mutants` turns them on one after the other and demands that.
//
// It is not for faults of the world (a disk that fails, a network that loses):
// those are made by the seams of the rooms concerned, by clustertest and by chaos.
// The exceptions are DiskFile, by which a disk of a whole process is made worse from
// outside, and Snapshots, which makes the installation of one a thing of seconds.
//
// All of it is behind the build tag "faults". Without it On and Is are the constant
// false, so that the compiler removes the branches, and with them the package: a
// release holds nothing of it. With it, the environment is read once, at the first
// question. All functions are safe for concurrent use and never block.
package fault
