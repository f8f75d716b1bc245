#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
start ratelimit
for i in 1 2 3 4; do expect 200 "GET $i of 4 a day, by whomever"; done
expect 429 "GET 5"
expect 501 "another method: the API's own answer" -X PUT
