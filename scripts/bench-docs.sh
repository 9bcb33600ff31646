#!/usr/bin/env bash
# Writes the tables of docs/benchmarks.md anew: runs muster bench, and
# scripts/bench-peers.sh (together about five minutes), and replaces what stands
# between the page's markers. Nothing else should run meanwhile.
#
#   scripts/bench-docs.sh          both
#   scripts/bench-docs.sh peers    one of them: bench or peers
set -euo pipefail
cd "$(dirname "$0")/.."
page=docs/benchmarks.md
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ $# = 0 ]; then set -- bench peers; fi
for name; do
	case $name in
	bench) env -u MUSTER_ADDR bin/muster bench -o markdown >"$work/bench" ;;
	peers) scripts/bench-peers.sh -o markdown >"$work/peers" ;;
	*) sed -n 6,7p "$0" >&2; exit 2 ;;
	esac
done

# Between "<!-- NAME -->" and "<!-- /NAME -->" comes the file NAME, if there is one.
awk -v dir="$work" '
	/^<!-- \/[a-z]+ -->$/ { skip = 0 }
	!skip { print }
	/^<!-- [a-z]+ -->$/ {
		while ((getline line < (dir "/" $2)) > 0) { print line; skip = 1 }
	}' "$page" >"$work/page"
cp "$work/page" "$page"
