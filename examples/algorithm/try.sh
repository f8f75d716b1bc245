#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
(cd "$root" && go build -o "$tmp/algorithm" ./examples/algorithm)
server=(bash -c "exec '$tmp/algorithm' 127.0.0.1:\$GRPC")
fits=()
start fused
for i in 1 2 3; do expect 200 "request $i of 3 in a session" -H 'x-api-key: a'; done
expect 429 "request 4" -H 'x-api-key: a'
has 'retry-after: [1-5]'
expect 200 "somebody else" -H 'x-api-key: b'
sleep 5
expect 200 "a new session" -H 'x-api-key: a'
