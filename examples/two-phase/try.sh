#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
start two-phase
expect 401 "no token" # by ext_authz
for i in 1 2 3; do expect 200 "request $i of 3 a day" -H 'x-api-key: demo'; done
expect 429 "request 4, refused by Envoy's ratelimit filter" -H 'x-api-key: demo'
expect 429 "a method that the rules allow nobody" -X DELETE -H 'x-api-key: demo'
