# Shared by cluster.sh and demo.sh: the nodes of one loopback cluster.
# BASE is the first API port; node N listens on BASE+10*(N-1), and the two ports
# after it (peer, gossip). DATA holds a folder, a log and a pid file for each node.

BIN=${BIN:-bin/muster}
NODES=${NODES:-3}

api_port() { echo $((BASE + 10 * ($1 - 1))); }
api_url() { echo "http://127.0.0.1:$(api_port "$1")"; }

seeds() {
	local n list=
	for n in $(seq "$NODES"); do list+="${list:+,}127.0.0.1:$(($(api_port "$n") + 2))"; done
	echo "$list"
}

# start_node N: start node N in the background and note its pid.
start_node() {
	local n=$1 port
	port=$(api_port "$n")
	mkdir -p "$DATA"
	"$BIN" server --name "n$n" --data-dir "$DATA/n$n" \
		--api-addr "127.0.0.1:$port" --peer-addr "127.0.0.1:$((port + 1))" --gossip-addr "127.0.0.1:$((port + 2))" \
		--bootstrap-expect "$NODES" --join "$(seeds)" >>"$DATA/n$n.log" 2>&1 &
	echo $! >"$DATA/n$n.pid"
	disown # so that the shell does not remark on a node that is killed on purpose
}

pid_of() { cat "$DATA/n$1.pid" 2>/dev/null; }
alive() { local pid; pid=$(pid_of "$1") && [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; }

# ready URL [QUERY]: whether the node at URL answers 200 on /readyz.
ready() { curl -fsS -o /dev/null -m 2 "$1/readyz${2:-}" 2>/dev/null; }

# wait_ready: until every node of the cluster is ready and knows a leader.
wait_ready() {
	local n deadline=$((SECONDS + 60))
	for n in $(seq "$NODES"); do
		until ready "$(api_url "$n")" '?require=leader'; do
			if ! alive "$n"; then
				echo "node n$n has stopped; the end of its log ($DATA/n$n.log):" >&2
				tail -n 5 "$DATA/n$n.log" >&2
				return 1
			fi
			if [ $SECONDS -gt $deadline ]; then
				echo "node n$n is not ready after 60 s; see $DATA/n$n.log" >&2
				return 1
			fi
			sleep 0.1
		done
	done
}

# leader_node: the number of the leader, as node $1 sees it.
leader_node() {
	local name
	name=$("$BIN" --addr "$(api_url "$1")" leader 2>/dev/null | cut -d' ' -f1)
	echo "${name#n}"
}

# stop_nodes: end the nodes this script started, by pid, and wait for them.
stop_nodes() {
	local n pids=()
	for n in $(seq "$NODES"); do alive "$n" && pids+=("$(pid_of "$n")"); done
	[ ${#pids[@]} -gt 0 ] && kill "${pids[@]}" 2>/dev/null
	for n in $(seq "$NODES"); do
		while alive "$n"; do sleep 0.05; done
		rm -f "$DATA/n$n.pid"
	done
}
