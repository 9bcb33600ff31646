#!/usr/bin/env bash
# Runs every fuzz target of the repository for FUZZTIME (default 10s), one after the
# other. What one finds is kept as a seed in its testdata and fails the ordinary tests
# from then on.
set -euo pipefail
cd "$(dirname "$0")/.."
count=0
while IFS=: read -r file _ line; do
	name=${line#func }
	name=${name%%(*}
	echo "== $(dirname "$file") $name"
	"${GO:-go}" test "$(dirname "$file")" -run '^$' -fuzz "^$name\$" -fuzztime "${FUZZTIME:-10s}"
	count=$((count + 1))
done < <(grep -rn --include='*_test.go' '^func Fuzz' .)
echo "$count fuzz targets, nothing found"
if ((count < 12)); then
	echo "fewer than 12: the search for them is broken" >&2
	exit 1
fi
