#!/usr/bin/env bash
# A walk through the registry with curl alone. Start a cluster in another terminal,
#
#     muster dev
#
# and run this: examples/curl.sh [URL of one node [URL of another]]. It leaves nothing
# behind in the registry.
set -euo pipefail

ONE=${1:-http://127.0.0.1:7400}
OTHER=${2:-http://127.0.0.1:7420}
SERVICE=curl-walk
scratch=$(mktemp -d)
watcher=
clean() {
	if [ -n "$watcher" ]; then kill "$watcher" 2>/dev/null || true; fi
	for id in a b; do curl -sS -o "$scratch/gone" -X DELETE "$ONE/v1/services/$SERVICE/instances/$id" || true; done
	rm -rf "$scratch"
}
trap clean EXIT

say() { printf '\n# %s\n' "$1"; }
# run CURL-ARGUMENTS: show the command, and what it answers.
run() {
	local arg
	printf '$ curl'
	for arg; do
		case $arg in *[!A-Za-z0-9_./:%-]*) arg="'$arg'" ;; esac
		printf ' %s' "$arg"
	done
	printf '\n'
	curl -fsS --max-time 30 "$@"
	echo
}

say "Register two instances. The first has to be heard from every minute."
run -X PUT "$ONE/v1/services/$SERVICE/instances/a" -d '{"address":"10.0.0.5","port":8080,"ttl":"60s","zone":"eu-1a","version":"1.4.2"}'
run -X PUT "$ONE/v1/services/$SERVICE/instances/b" -d '{"address":"10.0.0.6","port":8080,"ttl":"none","zone":"eu-1b","tags":["canary"]}'

say "What was written through one node is read on another: min_index waits until it is there."
index=$(curl -fsS -o "$scratch/list" -D - "$ONE/v1/services" | tr -d '\r' | sed -n 's/^[Mm]uster-[Ii]ndex: //p')
run "$OTHER/v1/services/$SERVICE?min_index=$index"
run "$OTHER/v1/services/$SERVICE?tag=canary"

say "A heartbeat; the answer says when the next one is due."
run -X PUT "$ONE/v1/services/$SERVICE/instances/a/heartbeat"

say "Just an address, in turn."
run -H 'Accept: text/plain' "$ONE/v1/services/$SERVICE/pick"
run -H 'Accept: text/plain' "$ONE/v1/services/$SERVICE/pick?strategy=consistent_hash&key=user-4711"

say "Follow the service, and change something meanwhile."
curl -fsSN --max-time 60 "$OTHER/v1/watch?service=$SERVICE" >"$scratch/stream" 2>"$scratch/stream.err" &
watcher=$!
# until_streamed WHAT: until the stream has said so.
until_streamed() {
	local n
	for n in $(seq 300); do
		if grep -q "$1" "$scratch/stream"; then return; fi
		sleep 0.1
	done
	echo "the stream never said $1:" >&2
	cat "$scratch/stream" "$scratch/stream.err" >&2
	return 1
}
until_streamed '^event: synced'
run -X PUT "$ONE/v1/services/$SERVICE/instances/b/override?reason=disk+swap" -d '{"status":"maintenance"}'
until_streamed '"cause":"maintenance"'
grep '^event: change' -A 2 "$scratch/stream" | cut -c 1-160
run "$ONE/v1/services/$SERVICE?routable=true"

say "A long poll answers as soon as the service has changed."
index=$(curl -fsS -o "$scratch/list" -D - "$ONE/v1/services/$SERVICE" | tr -d '\r' | sed -n 's/^[Mm]uster-[Ii]ndex: //p')
curl -fsS --max-time 30 "$OTHER/v1/services/$SERVICE?index=$index&wait=20s" >"$scratch/poll" &
poll=$!
run -X DELETE "$ONE/v1/services/$SERVICE/instances/b/override" -w '%{http_code}'
wait "$poll"
cat "$scratch/poll"
echo

say "A refusal says what is wrong, with a code for programs."
printf '$ curl -X PUT .../instances/c -d %s\n' "'{\"address\":\"10.0.0.7\",\"port\":99999}'"
curl -sS -X PUT "$ONE/v1/services/$SERVICE/instances/c" -d '{"address":"10.0.0.7","port":99999}' | tee "$scratch/refusal"
echo
grep -q '"code":"invalid_port"' "$scratch/refusal"

say "Take both away. The empty list says why it is empty, and the journal who did what."
run -X DELETE "$ONE/v1/services/$SERVICE/instances/a?reason=retired" -w '%{http_code}'
run -X DELETE "$ONE/v1/services/$SERVICE/instances/b?reason=retired" -w '%{http_code}'
run "$ONE/v1/services/$SERVICE?consistency=linearizable" | tee "$scratch/empty"
grep -q '"empty_reason":"deregistered"' "$scratch/empty"
run "$ONE/v1/events?service=$SERVICE&limit=3"

say "That was all."
