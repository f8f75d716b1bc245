#!/usr/bin/env bash
# Runs a stand-in portal, its database (MariaDB), Tollgate and Envoy, changes limits
# in the database and shows that they are in force. Fails when what it prints is
# not so. Needs mariadb-server, curl and an Envoy: $ENVOY, or `make envoy`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd); root=$(cd "$here/../.." && pwd)
for p in mariadbd mariadb-install-db mariadb curl; do
  command -v $p >/dev/null || { echo "$p is missing: apt-get install mariadb-server mariadb-client curl" >&2; exit 77; }
done
envoy=${ENVOY:-$(ls "$root"/.tools/envoy-*/envoy 2>/dev/null | sort -V | tail -1 || true)}
[ -x "$envoy" ] || { echo "no Envoy: run make envoy, or name one in ENVOY" >&2; exit 1; }

dir=$(mktemp -d "${TMPDIR:-/tmp}/apollo.XXXXXX"); pids=()
stop() {
  status=$?
  trap - EXIT
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  [ $status = 0 ] || tail -n 20 "$dir"/*.log >&2 || true
  rm -rf "$dir"
  exit $status
}
trap stop EXIT; trap 'exit 1' INT TERM
read -r portal http listen admin < <(python3 - <<'PY'
import random, socket
ports = []
while len(ports) < 4:
    port = random.randrange(10000, 32768) # those of connections begin there
    try: socket.create_server(("127.0.0.1", port)).close()
    except OSError: continue
    if port not in ports: ports.append(port)
print(*ports)
PY
)
user=$(id -un)
if [ "$user" = root ]; then user=nobody; chmod 755 "$dir"; mkdir "$dir/data"; chown nobody "$dir/data"; else mkdir "$dir/data"; fi
socket=$dir/data/db.sock

echo "== a portal's database, in $dir"
mariadb-install-db --no-defaults --user="$user" --auth-root-authentication-method=normal --skip-test-db --datadir="$dir/data/db" >"$dir/install.log" 2>&1
start_db() {
  mariadbd --no-defaults --user="$user" --datadir="$dir/data/db" --socket="$socket" --skip-networking --pid-file="$dir/data/pid" >>"$dir/mariadb.log" 2>&1 &
  db=$!; pids+=($db)
  for _ in $(seq 600); do sql "SELECT 1" >/dev/null 2>&1 && return; sleep 0.1; done
  echo "MariaDB does not start" >&2; exit 1
}
sql() { mariadb --no-defaults --socket="$socket" --user=root --batch --skip-column-names "${2:-mysql}" -e "$1"; }
start_db
sql "CREATE DATABASE ApolloPortalDB"
mariadb --no-defaults --socket="$socket" --user=root ApolloPortalDB <"$here/portal.sql"
change() { sql "$1" ApolloPortalDB; }
orders=0a4d55a8d778e5022fab701977c5d840bbc486d0e1f2a3b4c5d6e7f80a1b2c3d
search=4dd7af2cd6e0a4ddc3f9d5e0d4b8fcdf3f2a2ee3a1c1b8c2d9e0f1a2b3c4d5e6
change "INSERT INTO Consumer (Id, AppId) VALUES (1, 'orders'), (2, 'search');
  INSERT INTO ConsumerToken (ConsumerId, Token, RateLimit) VALUES (1, '$orders', 5), (2, '$search', 20);
  CREATE USER portal@localhost IDENTIFIED BY 'portal'; GRANT ALL ON ApolloPortalDB.* TO portal@localhost;
  CREATE USER reader@localhost IDENTIFIED BY 'reads-only';
  GRANT SELECT ON ApolloPortalDB.Consumer TO reader@localhost; GRANT SELECT ON ApolloPortalDB.ConsumerToken TO reader@localhost;
  GRANT SELECT ON ApolloPortalDB.UserToken TO reader@localhost; GRANT SELECT ON ApolloPortalDB.ServerConfig TO reader@localhost;"

echo "== the portal, Tollgate as a user who only reads, Envoy"
(cd "$root" && go build -o "$dir/portal" ./examples/apollo/portal && CGO_ENABLED=0 go build -o "$dir/tollgate" ./cmd/tollgate)
"$dir/portal" -listen "127.0.0.1:$portal" -dsn "portal:portal@unix($socket)/ApolloPortalDB" >"$dir/portal.log" 2>&1 & pids+=($!)
export APOLLO_DSN="reader:reads-only@unix($socket)/ApolloPortalDB" TOLLGATE_SOCKET="$dir/tollgate.sock" TOLLGATE_HTTP="127.0.0.1:$http"
"$dir/tollgate" check --config "$here/tollgate.yaml"
"$dir/tollgate" serve --config "$here/tollgate.yaml" --data-dir "$dir/state" >"$dir/tollgate.log" 2>&1 & pids+=($!)
# What tollgate envoy prints, with the routes of routes.yaml.
"$dir/tollgate" envoy fused --config "$here/tollgate.yaml" --upstream "127.0.0.1:$portal" --listen "127.0.0.1:$listen" --admin "127.0.0.1:$admin" |
  sed -e '/prefix: "\/"}, route: {cluster: upstream}}/{' -e "r $here/routes.yaml" -e 'd' -e '}' >"$dir/envoy.yaml"
"$envoy" -c "$dir/envoy.yaml" --use-dynamic-base-id -l warning >"$dir/envoy.log" 2>&1 & pids+=($!)
gate=http://127.0.0.1:$listen
for _ in $(seq 600); do
  curl -sf -o /dev/null "http://127.0.0.1:$http/readyz" && curl -sf -o /dev/null -b SESSION=ann "$gate/" && ready=1 && break
  sleep 0.1
done
[ "${ready:-}" = 1 ] || { echo "not ready" >&2; exit 1; }

fail() { echo "NOT SO: $*" >&2; exit 1; }
code() { curl -s -o /dev/null -w '%{http_code}' --path-as-is "$@"; }
expect() { # WHAT CODE ARGUMENTS: the answer's code
  local what=$1 want=$2 got; shift 2
  got=$(code "$@"); printf '  %-62s %s\n' "$what" "$got"
  [ "$got" = "$want" ] || fail "$what: want $want"
}
by_tollgate() { # a refusal of Tollgate's, never seen by the portal
  local what=$1; shift
  curl -s -o /dev/null -D - --path-as-is "$@" | grep -qi '^x-tollgate-reason: invalid-credentials' || fail "$what is refused by Tollgate"
  printf '  %-62s %s\n' "$what" "refused by Tollgate"
}
burst() { # N ARGUMENTS... URL: how many of N at once are admitted, and in how many ms
  local n=$1 start url=${*: -1}; shift
  start=$(date +%s%3N)
  admitted=$(curl -s --no-progress-meter -Z --parallel-immediate --parallel-max "$n" -o /dev/null -w '%{http_code}\n' "${@:1:$#-1}" "$url?n=[1-$n]" | grep -c '^200$' || true)
  ms=$(($(date +%s%3N) - start))
}
limited() { # WHAT RATE N ARGUMENTS: of N at once pass a second's worth, and what the time that they take gives back
  local what=$1 rate=$2; shift 2
  burst "$@"
  between "$what: of $1 at once pass" "$admitted" "$rate" $((rate + rate * ms / 1000 + 1))
}
all() { # WHAT N ARGUMENTS: all of N at once pass
  local what=$1; shift
  burst "$@"
  between "$what: of $1 at once pass" "$admitted" "$1" "$1"
}
between() { # WHAT GOT LOW HIGH
  printf '  %-62s %s\n' "$1" "$2"
  [ "$2" -ge "$3" ] && [ "$2" -le "$4" ] || fail "$1: $2, want $3 to $4"
}
soon() { sleep 1.5; } # a second fills a bucket
in_force() { # PATH PATTERN: waits until the admin API says so, which is after a poll, 500 ms
  for _ in $(seq 300); do curl -s "http://127.0.0.1:$http/v1/$1" | grep -Eq "$2" && soon && return; sleep 0.1; done
  fail "$1 is still: $(curl -s "http://127.0.0.1:$http/v1/$1"), want $2"
}
rate() { in_force consumers/orders "\"rate\": *\"$1/s\""; }
mode() { in_force settings "\"mode\": *\"$1\""; }
apps=$gate/openapi/v1/apps

echo "== who may pass"
expect "the portal's own page, with a session" 200 -b SESSION=ann "$apps"
expect "neither token nor session: the portal's way to sign in" 302 "$apps"
expect "a token" 200 -H "authorization: $orders" "$apps"
expect "the same token in capitals" 200 -H "authorization: ${orders^^}" "$apps"
by_tollgate "a token that nobody issued" -H "authorization: ${orders//a/b}" "$apps"
by_tollgate "Bearer before a consumer's token" -H "authorization: Bearer $orders" "$apps"
by_tollgate "two tokens" -H "authorization: $orders" -H "authorization: $search" "$apps"
for path in //openapi/v1/apps /%6fpenapi/v1/apps /x/../openapi/v1/apps '/openapi;a=b/v1/apps'; do
  by_tollgate "a wrong token at $path" -H "authorization: ${orders//a/b}" "$gate$path"
done

echo "== a limit is changed in the database, nothing is restarted"
soon; soon
limited "RateLimit 5" 5 30 -H "authorization: $orders" "$apps"
change "UPDATE ConsumerToken SET RateLimit = 1000 WHERE ConsumerId = 1"; rate 1000
all "UPDATE … RateLimit = 1000" 30 -H "authorization: $orders" "$apps"
change "UPDATE ConsumerToken SET RateLimit = 1 WHERE ConsumerId = 1"; rate 1
limited "UPDATE … RateLimit = 1" 1 30 -H "authorization: ${orders^^}" "$apps"
body=$(curl -s -D "$dir/headers" -H "authorization: $orders" "$apps")
grep -q '"status":429,"error":"Too Many Requests"' <<<"$body" && grep -qi '^retry-after: [1-9]' "$dir/headers" || fail "the refusal looks like the portal's, with Retry-After: $body"
echo "  $body"
wait_s=$(sed -n 's/^retry-after: \([0-9]*\).*/\1/Ip' "$dir/headers"); sleep "$wait_s"
expect "after Retry-After ($wait_s s)" 200 -H "authorization: $orders" "$apps"

echo "== the portal's switch"
change "INSERT INTO ServerConfig (\`Key\`, \`Value\`) VALUES ('open.api.limit.enabled', 'false')"; mode off
all "open.api.limit.enabled = false" 30 -H "authorization: $orders" "$apps"
change "UPDATE ServerConfig SET \`Value\` = 'shadow'"; mode shadow
all "= shadow (decides, refuses nobody)" 30 -H "authorization: $orders" "$apps"
change "UPDATE ServerConfig SET \`Value\` = 'true'"; mode enforce
limited "= true" 1 30 -H "authorization: $orders" "$apps"

echo "== what a call is about"
soon
items=$gate/openapi/v1/envs/DEV/apps/shop/clusters/default/namespaces/application
expect "a read by search, which has 20/s" 200 -H "authorization: $search" "$items/items"; soon; soon
limited "reads" 20 60 -H "authorization: $search" "$items/items"; soon
limited "writes, which cost 5 each" 4 40 -X POST -H "authorization: $search" "$items/items"; soon
between "of 10 releases, 2 a minute whatever the token's limit, pass" "$(for _ in $(seq 10); do code -X POST -H "authorization: $search" "$items/releases"; echo; sleep 0.3; done | grep -c '^200$')" 2 4

echo "== the portal is spared, and its database may be away"
change "UPDATE ConsumerToken SET RateLimit = 5 WHERE ConsumerId = 1"; rate 5
before=$(curl -s "http://127.0.0.1:$portal/served")
burst 200 -H "authorization: $orders" "$apps"
reached=$(($(curl -s "http://127.0.0.1:$portal/served") - before))
between "RateLimit 5: of 200 at once the portal saw" "$reached" "$admitted" $((5 + 5 * ms / 1000 + 1))
kill "$db"; wait "$db" 2>/dev/null || true
for _ in $(seq 300); do curl -s "http://127.0.0.1:$http/readyz" | grep -q "is down since" && break; sleep 0.1; done
refused=$(curl -s --no-progress-meter -Z --parallel-max 50 -o /dev/null -w '%{http_code}\n' -H "authorization: $orders" "$apps?n=[1-50]" | grep -c '^429$' || true)
between "without the database, of 50 at once Tollgate refuses" "$refused" 25 50
curl -s "http://127.0.0.1:$http/readyz" | grep -q "is down since" || fail "/readyz tells that the database is away"
start_db
change "UPDATE ConsumerToken SET Expires = NOW() - INTERVAL 1 DAY WHERE ConsumerId = 1"
# The portal knows before Tollgate does, and its own 401 is no sign.
for _ in $(seq 150); do curl -s -o /dev/null -D - -H "authorization: $orders" "$apps" | grep -qi '^x-tollgate-reason: invalid-credentials' && break; sleep 0.2; done
by_tollgate "the database is back, and the token has expired" -H "authorization: $orders" "$apps"
! grep -q -e "$orders" -e "$search" -e reads-only "$dir/tollgate.log" || fail "no secret in Tollgate's log"
echo "ok"
