package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	envoyconfig "github.com/tollgate-dev/tollgate/envoy/config"
	envoyprocess "github.com/tollgate-dev/tollgate/envoy/process"
)

// path is a way through Envoy: what its filters ask, and whom.
type path struct {
	name    string
	mode    envoyconfig.Mode
	noopOf  bool   // the floor answers
	none    bool   // nobody is asked: Envoy has no filter but its router
	listens string // which of Tollgate's listeners answers
}

// paths are what is compared. The first is what the others add to.
var paths = []path{
	{name: "no filter", mode: envoyconfig.Fused, none: true},
	{name: "no-op ext_authz server", mode: envoyconfig.Fused, noopOf: true},
	{name: "fused", mode: envoyconfig.Fused, listens: "tollgate"},
	{name: "two-phase", mode: envoyconfig.TwoPhase, listens: "tollgate"},
	{name: "ratelimit", mode: envoyconfig.RateLimit, listens: "tollgate"},
	{name: "fused, fast listener", mode: envoyconfig.Fused, listens: "fast"},
	{name: "two-phase, fast listener", mode: envoyconfig.TwoPhase, listens: "fast"},
}

// throughEnvoy is what to measure on the whole path.
type throughEnvoy struct {
	plan
	envoy       string
	concurrency int
	rate        float64
}

// runEnvoy measures what each way of asking adds to a request through Envoy.
func runEnvoy(args []string, w io.Writer) error {
	var t throughEnvoy
	f := flag.NewFlagSet("bench envoy", flag.ExitOnError)
	f.IntVar(&t.rounds, "rounds", 9, "rounds; medians are printed")
	f.DurationVar(&t.load.Run, "time", time.Second, "how long a run counts")
	f.DurationVar(&t.load.Warm, "warm", 300*time.Millisecond, "how long a run warms up before")
	f.IntVar(&t.load.Connections, "connections", 4, "connections to Envoy")
	f.Float64Var(&t.rate, "rate", 0, "open loop: requests a second; 0: half of what the slowest way reaches")
	f.IntVar(&t.concurrency, "concurrency", 1, "Envoy's worker threads")
	f.StringVar(&t.envoy, "envoy", "", "the `program` envoy; empty: $ENVOY, the PATH, what make envoy has fetched")
	f.StringVar(&t.tollgate, "tollgate", "bin/tollgate", "the `program` tollgate")
	consumers := f.Int("consumers", 1000, "number of consumers")
	if err := f.Parse(args); err != nil {
		return err
	}
	t.consumers = []int{*consumers}
	return t.run(w)
}

func (t throughEnvoy) run(w io.Writer) error {
	dir, err := os.MkdirTemp("", "tollgate-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	u, err := startUpstream()
	if err != nil {
		return err
	}
	defer u.stop()
	var noop, asked service
	defer noop.stop()
	defer asked.stop()
	floors, err := t.startFloor(&noop)
	if err != nil {
		return err
	}
	tollgate, err := t.startTollgate(dir+"/tollgate", "", t.consumers[0], "admitted", &asked)
	if err != nil {
		return err
	}
	var subjects []subject
	for _, p := range paths {
		s, target := &asked, tollgate.targets[p.listens]
		if p.noopOf {
			s, target = &noop, floors[0].target
		} else if p.none {
			s, target = new(service), floors[0].target
		}
		e, address, err := t.startEnvoy(p, u.address(), target)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		defer func() { _ = e.Stop() }()
		subjects = append(subjects, subject{server: p.name, target: address, service: s})
	}
	fmt.Fprintf(w, "%s; Envoy with %d worker\n\n", machine(), t.concurrency)
	return t.drive(w, subjects)
}

// bootstrap returns what `tollgate envoy` prints for a path.
func (p path) bootstrap(upstream, asked string) ([]byte, error) {
	var printed bytes.Buffer
	if err := envoyconfig.Print(&printed, envoyconfig.Options{
		Mode: p.mode, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Upstream: upstream, Tollgate: []string{asked}, Timeout: 5 * time.Second,
	}); err != nil || !p.none {
		return printed.Bytes(), err
	}
	before, rest, found := strings.Cut(printed.String(), "http_filters:\n")
	router := strings.Index(rest, "          - name: envoy.filters.http.router\n")
	if !found || router < 0 {
		return nil, errors.New("what `tollgate envoy` prints has no filters before a router")
	}
	return []byte(before + "http_filters:\n" + rest[router:]), nil
}

// startEnvoy runs an Envoy and waits until a request comes through.
func (t throughEnvoy) startEnvoy(p path, upstream, asked string) (*envoyprocess.Envoy, string, error) {
	bootstrap, err := p.bootstrap(upstream, asked)
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	e, err := envoyprocess.Start(ctx, envoyprocess.Options{Path: t.envoy, Bootstrap: bootstrap, Concurrency: t.concurrency, LogLevel: "error"})
	if err != nil {
		return nil, "", err
	}
	address, err := e.Listener(ctx, "http")
	if err == nil {
		err = t.waitServed(ctx, address)
	}
	if err != nil {
		return nil, "", errors.Join(err, e.Stop())
	}
	return e, address, nil
}

// waitServed waits until a request is answered as it should be: Envoy first
// finds out whether whom it asks is healthy.
func (t throughEnvoy) waitServed(ctx context.Context, address string) error {
	l := load{Connections: 1, Streams: 1, Run: 50 * time.Millisecond}
	for ctx.Err() == nil {
		sources, err := sourcesOf(pages, t.consumers[0], 1)
		if err != nil {
			return err
		}
		if r, err := drive(address, pages, l, sources, func() {}); err == nil && r.Answered > 0 && r.Failed+r.Refused == 0 {
			return nil
		}
	}
	return errors.New("no request came through")
}

func (t throughEnvoy) drive(w io.Writer, subjects []subject) error {
	busy := t.load
	busy.Name, busy.Streams = closedLoop(64), 64/busy.Connections
	saturated, err := t.measureAll(subjects, busy)
	if err != nil {
		return err
	}
	slowest := 0.0
	table := table{header: []string{"through Envoy, " + busy.Name, "req/s", "ratio", "p50 µs", "p99 µs", "server's CPU µs", "failed"}}
	for _, s := range subjects {
		f := median(saturated[s.server])
		if slowest == 0 || f.rate < slowest {
			slowest = f.rate
		}
		table.add(s.server, fmt.Sprintf("%.0f", f.rate), fmt.Sprintf("%.2f", ratio(saturated[s.server], saturated[subjects[0].server], rateOf)),
			fmt.Sprint(f.p50.Microseconds()), fmt.Sprint(f.p99.Microseconds()), fmt.Sprintf("%.1f", f.cpu.Seconds()*1e6), fmt.Sprint(f.failed))
	}
	if err := table.print(w); err != nil {
		return err
	}
	half := t.load
	half.Rate = t.rate
	if half.Rate == 0 {
		half.Rate = slowest / 2
	}
	half.Name = openLoop(half.Rate)
	calm, err := t.measureAll(subjects, half)
	if err != nil {
		return err
	}
	return reportAdded(w, half, subjects, calm, saturated)
}

func (t throughEnvoy) measureAll(subjects []subject, l load) (map[string][]figures, error) {
	all := map[string][]figures{}
	for range t.rounds {
		for _, s := range subjects {
			sources, err := sourcesOf(pages, t.consumers[0], l.Connections)
			if err != nil {
				return nil, err
			}
			f, err := measure(s.target, pages, l, sources, s.service.usage)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", s.server, l.Name, err)
			}
			all[s.server] = append(all[s.server], f)
		}
	}
	return all, nil
}

// added are the latencies that a path adds to those of another, round by round.
func added(rounds, plain []figures) []figures {
	out := make([]figures, len(rounds))
	for i := range out {
		out[i] = figures{p50: rounds[i].p50 - plain[i].p50, p99: rounds[i].p99 - plain[i].p99}
	}
	return out
}

func p50Of(f figures) float64 { return float64(f.p50) }

// reportAdded prints what each path adds, and the goals.
func reportAdded(w io.Writer, l load, subjects []subject, calm, saturated map[string][]figures) error {
	t := table{header: []string{"through Envoy, " + l.Name, "p50 µs", "added", "p99 µs", "added", "server's CPU µs", "failed"}}
	more := map[string][]figures{}
	failures := int64(0)
	for _, s := range subjects {
		more[s.server] = added(calm[s.server], calm[subjects[0].server])
		f, a := median(calm[s.server]), median(more[s.server])
		failures += f.failed + median(saturated[s.server]).failed
		t.add(s.server, fmt.Sprint(f.p50.Microseconds()), fmt.Sprint(a.p50.Microseconds()), fmt.Sprint(f.p99.Microseconds()), fmt.Sprint(a.p99.Microseconds()),
			fmt.Sprintf("%.1f", f.cpu.Seconds()*1e6), fmt.Sprint(f.failed))
	}
	if err := t.print(w); err != nil {
		return err
	}
	goals := table{header: []string{"goal", "at most", "measured", "met"}}
	for _, g := range []struct {
		name, beside string
		bound        float64
	}{{"fused", "two-phase", 0.6}, {"fused", "no-op ext_authz server", 1.1}, {"fused, fast listener", "no-op ext_authz server", 1.1}} {
		r := ratio(more[g.name], more[g.beside], p50Of)
		goals.add(fmt.Sprintf("added p50: %s / %s", g.name, g.beside), fmt.Sprintf("%.2f", g.bound), fmt.Sprintf("%.2f", r), verdict(r > 0 && r <= g.bound))
	}
	goals.add("requests that failed", "0", fmt.Sprint(failures), verdict(failures == 0))
	return goals.print(w)
}
