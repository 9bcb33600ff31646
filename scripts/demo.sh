#!/usr/bin/env bash
# A walk through: three nodes, register on a follower, read on another, kill -9
# the leader, write and read again. Uses its own ports (7430, 7440, 7450) and a
# temporary folder, and cleans up after itself.
set -eu
cd "$(dirname "$0")/.."
DATA=$(mktemp -d "${TMPDIR:-/tmp}/muster-demo.XXXXXX")
BASE=${BASE:-7430}
. scripts/lib.sh
trap 'stop_nodes; rm -rf "$DATA"' EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; echo; }

[ -x "$BIN" ] || { echo "$BIN is missing: run make first" >&2; exit 1; }

say "Three nodes start and find each other."
for n in 1 2 3; do start_node "$n"; done
wait_ready
lead=$(leader_node 1)
follow=$((lead % NODES + 1))
other=$((follow % NODES + 1))
show "$BIN" --addr "$(api_url "$follow")" members

say "An instance is registered through n$follow, a follower."
show curl -fsS -X PUT "$(api_url $follow)/v1/services/web/instances/web-1?reason=demo" -d '{"address":"10.0.0.5","port":8080,"ttl":"none"}'

say "It is read on n$other; the node says how old its answer may be."
show curl -fsS -D - "$(api_url $other)/v1/services/web?consistency=linearizable"

say "The leader, n$lead, is killed with kill -9."
kill -9 "$(pid_of "$lead")"
start=$(date +%s%N)
show curl -fsS -X PUT "$(api_url $follow)/v1/services/web/instances/web-2" -d '{"address":"10.0.0.6","port":8080,"ttl":"none"}'
echo "The next write was acknowledged $((($(date +%s%N) - start) / 1000000)) ms after the kill."

say "Nothing was lost."
show curl -fsS "$(api_url $other)/v1/services/web?consistency=linearizable"
show "$BIN" --addr "$(api_url "$other")" events web

say "The killed node comes back and catches up."
start_node "$lead"
wait_ready
show "$BIN" --addr "$(api_url "$lead")" instances web
