#!/usr/bin/env bash
# Runs the example, draws plot.svg, and fails when what it prints is not so.
# Arguments are passed on: -window 5s is quicker than Keeper's own 10 s.
set -euo pipefail
cd "$(dirname "$0")"
make --no-print-directory -C ../.. build envoy >/dev/null
go run . -check -plot plot.svg "$@"
