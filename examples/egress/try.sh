#!/usr/bin/env bash
. "$(dirname "$0")/../lib.sh"
start egress --upstream-plaintext
expect 200 "a call" -H 'Host: api.example'
expect 429 "the API has had enough, and says so" -H 'Host: api.example' -H 'x-please: throttle'
expect 429 "the next call, which does not reach it" -H 'Host: api.example'
has 'x-tollgate-reason: upstream-pressure'
expect 200 "another API" -H 'Host: other.example'
