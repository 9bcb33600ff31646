# make          build bin/muster
# make run      build, then start three nodes on loopback with curl lines to paste
# make test     what CI runs: gofmt, vet, the house test, all tests with -race
# make bench    measures a cluster it starts (muster bench), with floors measured in the
#               same run; BENCH= more flags, such as BENCH='-o markdown'
# make bench-peers  the same work on etcd and ZooKeeper, where they are installed
# make bench-docs   both, into docs/benchmarks.md
# make bench-go the benchmarks of the packages, for work on one of them
# make scale    SCALE (1000000) instances and leases against state machine and keepers
# make fuzz     every fuzz target for FUZZTIME (10s)
# make mutants  deliberate bugs (room fault): each must be caught by the tests named
# make chaos    faults on real processes for DURATION (5m), by SEED (any), FAULTS (all)
# make lint     staticcheck
# make release  the binaries of a release in dist/, with SHA256SUMS
# make upgrade from the release before to this tree, node by node, under load
# make rules    tests of the Prometheus rules, where promtool is installed
GO      ?= go
BENCH   ?=
SCALE   ?= 1000000
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X main.version=$(VERSION)

.PHONY: build run demo test fmt-check lint rules upgrade release bench bench-peers bench-docs bench-go scale fuzz mutants chaos clean

build:
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/muster ./cmd/muster

run: build
	./scripts/cluster.sh

demo: build
	./scripts/demo.sh

fmt-check:
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "not gofmt'ed:"; echo "$$out"; exit 1; fi

test: fmt-check
	$(GO) vet ./...
	$(GO) test -race -shuffle=on -timeout 20m ./...
	$(GO) test -tags nextlevel ./fsm

lint:
	$(GO) tool staticcheck ./...

rules:
	./scripts/rules.sh

upgrade:
	GO='$(GO)' ./scripts/upgrade.sh

bench: build
	@env -u MUSTER_ADDR bin/muster bench $(BENCH)

bench-peers: build
	@./scripts/bench-peers.sh $(BENCH)

bench-docs: build
	./scripts/bench-docs.sh

bench-go:
	$(GO) test -run '^$$' -bench . -benchmem ./...

release:
	GO='$(GO)' VERSION='$(VERSION)' ./scripts/release.sh

scale:
	$(GO) test ./clustertest -run '^TestScale$$' -v -timeout 60m -args -scale $(SCALE)

fuzz:
	./scripts/fuzz.sh

mutants:
	$(GO) run ./scripts/mutants

DURATION ?= 5m
chaos:
	$(GO) test ./chaos -run '^TestChaos$$' -v -count=1 -timeout 24h -chaos.duration $(DURATION) \
		$(if $(SEED),-chaos.seed $(SEED)) $(if $(NODES),-chaos.nodes $(NODES)) $(if $(FAULTS),-chaos.faults $(FAULTS)) $(if $(KEEP),-chaos.keep $(abspath $(KEEP)))

clean:
	rm -rf bin dist
