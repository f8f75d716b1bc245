#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
start fused
expect 401 "no token"
expect 401 "a token that nobody has" -H 'x-api-key: guess'
for i in 1 2 3; do expect 200 "request $i of 3 a day" -H 'x-api-key: demo'; done
has 'hello billing'
expect 429 "request 4" -H 'x-api-key: demo'
has 'retry-after'
has '"limit":"quota-3-day"'
