#!/usr/bin/env bash
# Builds the binaries of a release into dist/, with their checksums. The same commit,
# VERSION and Go give the same bytes, on any machine and from any folder.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${VERSION:?the version, as v1.2.3}" "${GO:=go}"
targets="linux/amd64 linux/arm64 darwin/arm64"

rm -rf dist
mkdir dist
for target in $targets; do
	os=${target%/*} arch=${target#*/}
	name=muster-$VERSION-$os-$arch
	echo "building $name"
	# No cgo: one static file. No paths and no state of the checkout in it.
	CGO_ENABLED=0 GOOS=$os GOARCH=$arch GOFLAGS= GOAMD64=v1 GOARM64=v8.0 \
		$GO build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$VERSION" -o "dist/$name" ./cmd/muster
done
cd dist
sha256sum muster-* >SHA256SUMS 2>/dev/null || shasum -a 256 muster-* >SHA256SUMS
cat SHA256SUMS
