# Sourced by every try.sh: starts Tollgate, an API and a real Envoy on free
# loopback ports, and stops them again. expect fails when an answer is another.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
tollgate=$root/bin/tollgate
envoy=${ENVOY:-$(ls -d "$root"/.tools/envoy-*/envoy 2>/dev/null | sort -V | tail -1)}
[ -x "$tollgate" ] && [ -x "$envoy" ] || make --no-print-directory -C "$root" build envoy >/dev/null
envoy=${envoy:-$(ls -d "$root"/.tools/envoy-*/envoy | sort -V | tail -1)}
tmp=$(mktemp -d)
pids=()
stop() {
	status=$?
	[ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
	wait 2>/dev/null || true
	[ $status -eq 0 ] || tail -n 5 "$tmp"/*.log >&2 || true
	rm -rf "$tmp"
	exit $status
}
trap stop EXIT

# What is asked, on port $GRPC, and what Envoy's configuration is fitted to.
server=("$tollgate" serve --config tollgate.yaml --data-dir "$tmp/data")
fits=(--config tollgate.yaml)

# free prints a port that nobody listens on. Connections have those from 32768 on for their near ends.
free() {
	python3 - <<-'PY'
		import random, socket
		while True:
		    port = random.randrange(10000, 32768)
		    try:
		        socket.create_server(("127.0.0.1", port)).close()
		    except OSError:
		        continue
		    print(port)
		    break
	PY
}

# listening PORT waits until somebody does.
listening() {
	for _ in $(seq 600); do
		(: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
		sleep 0.1
	done
	echo "nothing listens on port $1" >&2
	exit 1
}

# start MODE [FLAG…] runs all three; tollgate.yaml takes its ports from $GRPC and $HTTP.
start() {
	export GRPC HTTP
	GRPC=$(free) HTTP=$(free) api=$(free) port=$(free)
	python3 "$root/examples/api.py" "$api" >"$tmp/api.log" 2>&1 &
	pids+=($!)
	"${server[@]}" >"$tmp/server.log" 2>&1 &
	pids+=($!)
	listening "$api"
	listening "$GRPC"
	mode=$1
	shift
	"$tollgate" envoy "$mode" "${fits[@]}" --tollgate "127.0.0.1:$GRPC" --upstream "127.0.0.1:$api" --listen "127.0.0.1:$port" --admin 127.0.0.1:0 --timeout 5s "$@" >"$tmp/envoy.yaml"
	"$envoy" --disable-hot-restart --concurrency 2 -l warning -c "$tmp/envoy.yaml" >"$tmp/envoy.log" 2>&1 &
	pids+=($!)
	url=http://127.0.0.1:$port
	listening "$port"
}

# expect STATUS WHAT [CURL ARGUMENT…] asks once, tells, and fails on another status.
expect() {
	want=$1 what=$2
	shift 2
	got=$(curl -s -o "$tmp/body" -D "$tmp/headers" -w '%{http_code}' "$@" "$url/")
	echo "$got  $what"
	[ "$got" = "$want" ] || { echo "want $want" >&2; cat "$tmp/headers" "$tmp/body" >&2; exit 1; }
}

# has TEXT fails unless the last answer holds it, in its headers or its body.
has() { grep -qi -- "$1" "$tmp/headers" "$tmp/body" || { echo "no $1 in the answer" >&2; cat "$tmp/headers" "$tmp/body" >&2; exit 1; }; }
