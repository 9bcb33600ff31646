#!/usr/bin/env bash
# Start a three-node cluster on loopback and keep it running until ctrl-C.
#
#   scripts/cluster.sh            start n1, n2, n3 (API ports 7400, 7410, 7420)
#   scripts/cluster.sh --fresh    the same, with empty data directories
#   scripts/cluster.sh node 2     start n2 again after you killed it
#
# DATA=data (folder for data, logs and pid files), BASE=7400, BIN=bin/muster
set -u
cd "$(dirname "$0")/.." || exit 1
DATA=${DATA:-data}
BASE=${BASE:-7400}
. scripts/lib.sh

if [ ! -x "$BIN" ]; then echo "$BIN is missing: run make first" >&2; exit 1; fi

case "${1:-}" in
node)
	n=${2:?which node? scripts/cluster.sh node 2}
	if alive "$n"; then echo "n$n is already running (pid $(pid_of "$n"))" >&2; exit 1; fi
	start_node "$n"
	until ready "$(api_url "$n")"; do
		alive "$n" || { tail -n 5 "$DATA/n$n.log" >&2; exit 1; }
		sleep 0.1
	done
	echo "n$n is back at $(api_url "$n") (pid $(pid_of "$n"))"
	exit 0
	;;
--fresh)
	for n in $(seq "$NODES"); do
		if alive "$n"; then echo "n$n is running: stop the cluster first" >&2; exit 1; fi
		rm -rf "$DATA/n$n" "$DATA/n$n.log"
	done
	;;
"") ;;
*)
	sed -n '2,8p' "$0" | cut -c3-
	exit 2
	;;
esac

for n in $(seq "$NODES"); do
	if alive "$n"; then echo "n$n is already running (pid $(pid_of "$n")): stop that cluster first" >&2; exit 1; fi
done
trap 'echo; echo "stopping"; stop_nodes; exit 0' INT TERM
mkdir -p "$DATA"
for n in $(seq "$NODES"); do
	: >"$DATA/n$n.log"
	start_node "$n"
done
echo "starting n1, n2, n3 ..."
wait_ready || { stop_nodes; exit 1; }

lead=$(leader_node 1)
follow=$((lead % NODES + 1))
other=$((follow % NODES + 1))
cat <<EOF

Three nodes are up; n$lead leads. Data and logs are in $DATA/. Paste these in another terminal:

  # register an instance through a follower (n$follow)
  curl -sS -X PUT $(api_url $follow)/v1/services/web/instances/web-1 \\
       -d '{"address":"10.0.0.5","port":8080,"ttl":"none"}'; echo

  # read it on another node (n$other)
  curl -sS $(api_url $other)/v1/services/web; echo

  # who is in the cluster, and who leads
  $BIN members

  # kill the leader the hard way, then write and read again
  kill -9 $(pid_of "$lead")
  curl -sS -X PUT $(api_url $follow)/v1/services/web/instances/web-2 \\
       -d '{"address":"10.0.0.6","port":8080,"ttl":"none"}'; echo
  curl -sS $(api_url $other)/v1/services/web; echo

  # bring it back
  scripts/cluster.sh node $lead

  # why is an instance there, or gone?
  $BIN --addr $(api_url $follow) events web

ctrl-C stops the cluster; the data stays (--fresh starts empty).
EOF
# Wait for the signal; a node that was killed on purpose does not end the script.
while :; do sleep 1 & wait $!; done
