#!/usr/bin/env bash
# Runs the example five times as fast as Keeper is, and fails when what it prints is not so. run.sh keeps Keeper's own time.
set -euo pipefail
cd "$(dirname "$0")"
[ -x ../../bin/tollgate ] && ls ../../.tools/envoy-*/envoy >/dev/null 2>&1 || make --no-print-directory -C ../.. build envoy >/dev/null
go run . -check -window 2s -until 15s
