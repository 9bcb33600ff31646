#!/usr/bin/env bash
# Checks and tests the Prometheus rules in deploy/prometheus with promtool (Debian's
# package prometheus has it). Without promtool it says so and succeeds.
set -euo pipefail
cd "$(dirname "$0")/../deploy/prometheus"
if ! command -v promtool >/dev/null 2>&1; then
	echo "SKIPPED: the Prometheus rules are not tested, promtool is not installed (apt-get install prometheus)"
	exit 0
fi
promtool check rules rules.yaml
promtool test rules rules_test.yaml
