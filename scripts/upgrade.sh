#!/usr/bin/env bash
# Takes a cluster under load from the release before this one to this tree, node by
# node, and back while that is allowed: builds muster at the latest tag that is not this
# commit and hands it to TestRollingUpgrade. Without such a tag there is nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}
here=$(git describe --tags --exact-match 2>/dev/null || true)
tag=$(git tag --list 'v*' --sort=-version:refname --merged HEAD | grep -vx "${here:-none}" | head -n 1 || true)
if [ -z "$tag" ]; then
	echo "upgrade: skipped: there is no release before this tree (no tag v*)"
	exit 0
fi
work=$(mktemp -d)
trap 'git worktree remove --force "$work/tree" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
git worktree add --detach "$work/tree" "$tag" >/dev/null
(cd "$work/tree" && $GO build -trimpath -ldflags "-X main.version=$tag" -o "$work/muster" ./cmd/muster)
echo "upgrade: from $tag"
MUSTER_PREVIOUS="$work/muster" $GO test ./cmd/muster -run 'TestRollingUpgrade$' -count 1 -timeout 10m -v
