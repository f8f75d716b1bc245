#!/usr/bin/env bash
# Runs the example and fails when what it prints is not so. Arguments are passed
# on, such as: -window 10s -until 3m (Keeper's real scale).
set -euo pipefail
cd "$(dirname "$0")"
make --no-print-directory -C ../.. build envoy >/dev/null
go run . -check -plot keeper.svg "$@"
