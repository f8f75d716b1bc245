package main

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
)

func TestRefusalsAreTold(t *testing.T) {
	for _, c := range []struct {
		name   string
		make   func(int, uint64) (messages, error)
		answer proto.Message
		want   outcome
	}{
		{"check ok", newCheck, &authv3.CheckResponse{Status: &rpcstatus.Status{}}, admitted},
		{"check denied", newCheck, &authv3.CheckResponse{Status: &rpcstatus.Status{Code: 8}}, refused},
		{"rate limit ok", newRateLimit, &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK}, admitted},
		{"rate limit over", newRateLimit, &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OVER_LIMIT}, refused},
	} {
		m, err := c.make(1000, 1)
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := proto.Marshal(c.answer)
		if err != nil {
			t.Fatal(err)
		}
		r := &reply{grpc: "0", body: append(make([]byte, 5), encoded...)}
		if got := m.judge(r); got != c.want {
			t.Errorf("%s: judge = %v, want %v", c.name, got, c.want)
		}
		if got := m.judge(&reply{grpc: "13"}); got != failed {
			t.Errorf("%s: judge of an error = %v, want %v", c.name, got, failed)
		}
	}
}

func TestMessagesCarryTheTokens(t *testing.T) {
	m, err := newCheck(1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 100 {
		var request authv3.CheckRequest
		if err := proto.Unmarshal(m.next().body, &request); err != nil {
			t.Fatal(err)
		}
		seen[request.GetAttributes().GetRequest().GetHttp().GetHeaders()["authorization"]] = true
	}
	if len(seen) < 50 {
		t.Errorf("100 requests carried %d tokens of 1000", len(seen))
	}
}

// TestConnectionsShareTheConsumers: who has each connection make its part of all
// requests has asked for every consumer once.
func TestConnectionsShareTheConsumers(t *testing.T) {
	const keys, connections = 1000, 4
	sources, err := sourcesOf(calls["ratelimit"], keys, connections)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, m := range sources {
		for range keys / connections {
			seen[string(m.next().body)] = true
		}
	}
	if len(seen) != keys {
		t.Errorf("%d requests of %d connections are of %d consumers", keys, connections, len(seen))
	}
}

// driven drives for ever longer until something was answered, which takes a while
// where others use the machine, and says how often it was told to measure.
func driven(t *testing.T, addr string, c call, l load, keys int) (r result, measured int) {
	t.Helper()
	for ; r.Answered < 30 && l.Run < time.Minute; l.Run *= 2 {
		sources, err := sourcesOf(c, keys, l.Connections)
		if err != nil {
			t.Fatal(err)
		}
		measured = 0
		if r, err = drive(addr, c, l, sources, func() { measured++ }); err != nil {
			t.Fatalf("%+v: %v", l, err)
		}
	}
	return r, measured
}

// TestDriveCountsPages drives an API over HTTP in both loops.
func TestDriveCountsPages(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	statuses := map[string]int{token(0): http.StatusOK, token(1): http.StatusTooManyRequests, token(2): http.StatusServiceUnavailable}
	server := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(statuses[strings.TrimPrefix(r.Header.Get("authorization"), "Bearer ")])
		_, _ = w.Write([]byte("body")) // the client may have gone
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	for _, l := range []load{
		{Connections: 2, Streams: 3, Warm: 10 * time.Millisecond, Run: 200 * time.Millisecond},
		{Connections: 2, Rate: 1000, Warm: 10 * time.Millisecond, Run: 200 * time.Millisecond},
	} {
		r, _ := driven(t, listener.Addr().String(), pages, l, len(statuses))
		if third := r.Answered / 3; third < 5 || r.Refused < third/2 || r.Refused > 2*third || r.Failed < third/2 || r.Failed > 2*third {
			t.Errorf("%+v: answered %d, refused %d, failed %d, want a third of each", l, r.Answered, r.Refused, r.Failed)
		}
	}
}

func TestBootstrapWithoutFilters(t *testing.T) {
	for _, p := range paths {
		b, err := p.bootstrap("127.0.0.1:8000", "127.0.0.1:8081")
		if err != nil {
			t.Fatal(err)
		}
		asks := bytes.Contains(b, []byte("- name: envoy.filters.http.ext_authz\n")) || bytes.Contains(b, []byte("- name: envoy.filters.http.ratelimit\n"))
		if asks == p.none || !bytes.Contains(b, []byte("- name: envoy.filters.http.router\n")) {
			t.Errorf("%s: a filter that asks: %v", p.name, asks)
		}
	}
}

// runningFloor serves the floor for as long as the test lasts, and returns its address.
func runningFloor(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := newFloor()
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// TestDriveCountsWhatTheFloorAnswers drives a real server in both loops.
func TestDriveCountsWhatTheFloorAnswers(t *testing.T) {
	address := runningFloor(t)
	for _, l := range []load{
		{Connections: 2, Streams: 3, Warm: 10 * time.Millisecond, Run: 200 * time.Millisecond},
		{Connections: 2, Rate: 500, Warm: 10 * time.Millisecond, Run: 200 * time.Millisecond},
	} {
		r, measured := driven(t, address, calls["check"], l, 10)
		if r.Answered == 0 || r.Failed != 0 || r.Refused != 0 || r.Latency.TotalCount() != r.Answered || measured != 2 {
			t.Errorf("%+v: answered %d, failed %d, refused %d, timed %d, measured %d times", l, r.Answered, r.Failed, r.Refused, r.Latency.TotalCount(), measured)
		}
		if sent := r.Late.TotalCount(); l.Rate > 0 && sent != r.Answered {
			t.Errorf("%+v: answered %d, timed the sending of %d", l, r.Answered, sent)
		}
	}
}

// TestAStallShows has a server answer nothing for a while: whatever was due
// then has waited, whether it was sent or not.
func TestAStallShows(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const stall, run, rate = 150 * time.Millisecond, 300 * time.Millisecond, 1000
	var mu sync.Mutex
	stalls := time.Now().Add(run / 4)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.After(stalls) {
			<-time.After(stall)
			stalls = now.Add(time.Hour)
		}
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	sources, err := sourcesOf(pages, 10, 2)
	if err != nil {
		t.Fatal(err)
	}
	r, err := drive(listener.Addr().String(), pages, load{Connections: 2, Rate: rate, Run: run}, sources, func() {})
	if err != nil {
		t.Fatal(err)
	}
	due := rate * run.Seconds()
	if n := float64(r.Latency.TotalCount()); n < due/2 || n > due*2 {
		t.Errorf("%v requests are timed, want about %v", n, due)
	}
	// Of those due in the stall, a third of all at least, half wait half of it.
	if got := time.Duration(r.Latency.ValueAtQuantile(90)) * time.Microsecond; got < stall/4 {
		t.Errorf("one in ten waited %v or longer, want at least %v", got, stall/4)
	}
}

func TestMediansAndRatios(t *testing.T) {
	slow := []figures{{cpu: 10, failed: 1}, {cpu: 40}, {cpu: 30}}
	fast := []figures{{cpu: 5}, {cpu: 10}, {cpu: 10, failed: 2}}
	if m := median(slow); m.cpu != 30 || m.failed != 1 {
		t.Errorf("median = %v of %d failed, want 30 of 1", m.cpu, m.failed)
	}
	// The rounds' ratios are 2, 4 and 3.
	if r := ratio(slow, fast, cpuOf); r != 3 {
		t.Errorf("ratio = %v, want 3", r)
	}
	if r := ratio(slow, nil, cpuOf); r != 0 {
		t.Errorf("ratio to nothing = %v, want 0", r)
	}
}

func TestGoals(t *testing.T) {
	p, err := parsePlan([]string{"-quick", "-api", "check", "-rounds", "1"})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.loads()) != 1 || p.rounds != 1 || p.half {
		t.Errorf("-quick -rounds 1: %d loads in %d rounds", len(p.loads()), p.rounds)
	}
	all := results{}
	for subject, cpu := range map[string]time.Duration{
		"floor": 100, "tollgate, 1,000, admitted": 60, "tollgate, 1,000, refused": 70, "fast, 1,000, admitted": 20, "fast, 1,000, refused": 20,
	} {
		all[cell{"check", saturated, subject}] = []figures{{cpu: cpu, failed: int64(cpu / 100)}}
	}
	var out strings.Builder
	if err := p.reportGoals(&out, all); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for line := range strings.Lines(out.String()) {
		rows = append(rows, strings.Join(strings.Fields(line), " "))
	}
	for _, want := range []string{
		"| tollgate Check beside floor, CPU | 0.65 | 0.60 to 0.70 | no |",
		"| fast Check beside floor, CPU | 0.25 | 0.20 | yes |",
		"| tollgate check, refused beside admitted, CPU | 1.10 | 1.17 | no |",
		"| requests that failed: 1 of floor, check, 64 in flight | 0 | | no |",
	} {
		if !slices.Contains(rows, want) {
			t.Errorf("no row %q in\n%s", want, out.String())
		}
	}
}

// TestAPeerThatDiesEndsNoRun: what is left is measured, and it is told.
func TestAPeerThatDiesEndsNoRun(t *testing.T) {
	address := runningFloor(t)
	dead, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	p, err := parsePlan([]string{"-quick", "-api", "ratelimit", "-rounds", "2", "-time", "400ms", "-warm", "10ms"})
	if err != nil {
		t.Fatal(err)
	}
	self := &service{processes: []*process{{cmd: &exec.Cmd{Process: &os.Process{Pid: os.Getpid()}}}}}
	floor := subject{server: "floor", apis: p.apis, target: address, service: self}
	peer := subject{server: "limitador", mix: "admitted", apis: p.apis, target: dead, service: new(service)}
	all := results{}
	var out strings.Builder
	if err := p.runCall(&out, "ratelimit", []subject{floor, peer}, all); err != nil {
		t.Fatal(err)
	}
	if n := len(all[cell{"ratelimit", saturated, "floor"}]); n != 2 {
		t.Errorf("the floor was measured %d times beside a peer that is dead, want 2", n)
	}
	if !strings.Contains(out.String(), "FAILED: "+peer.String()+", "+saturated) {
		t.Errorf("nothing tells that the peer is dead in\n%s", out.String())
	}
	peer.server = "tollgate"
	if err := p.runCall(&out, "ratelimit", []subject{floor, peer}, all); err == nil {
		t.Error("a Tollgate that is dead ended no run")
	}
}

// TestServersOutliveThreads: a server goes on when the thread ends that a goroutine
// ran on which started it.
func TestServersOutliveThreads(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	started := make(chan *process)
	for range 2 { // at once, as the first thread of all would not end
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with this
			p, err := start(listener.Addr().String(), nil, "sleep", "600")
			if err != nil {
				t.Error(err)
			}
			started <- p
		}()
	}
	for _, p := range []*process{<-started, <-started} {
		if p == nil {
			continue // which was told
		}
		select {
		case err := <-p.done:
			t.Errorf("the server ended with the thread: %v", err)
		case <-time.After(300 * time.Millisecond):
			p.stop()
		}
	}
}
