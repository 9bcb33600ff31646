#!/usr/bin/env bash
# Measures Muster beside etcd and ZooKeeper, those of them that are installed (Debian:
# etcd-server, zookeeper), each a cluster of three processes of its own on loopback.
# Arguments are those of scripts/peers:
#
#   scripts/bench-peers.sh -o markdown -duration 5s
#
# Services of the packages that run in the background take part of the machine: stop
# them before.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -x bin/muster ]; then echo "bin/muster is missing: run make first" >&2; exit 1; fi
tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT
(cd scripts/peers && "${GO:-go}" build -o "$tool/peers" .)
"$tool/peers" -muster bin/muster "$@"
