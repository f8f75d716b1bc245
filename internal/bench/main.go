package main

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "floor" {
		fail(serveFloor(os.Args[2]))
		return
	}
	if len(os.Args) == 4 && (os.Args[1] == "observed" || os.Args[1] == "silent") {
		fail(serveTollgate(os.Args[1], os.Args[2], os.Args[3]))
		return
	}
	p, err := parsePlan(os.Args[1:])
	fail(err)
	fail(p.run(os.Stdout))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// plan is what to measure: every server under every case, in rounds.
type plan struct {
	servers   []string
	apis      []string
	consumers []int
	mixes     []string
	streams   []int
	rates     []float64
	rounds    int
	load      load
	tollgate  string
}

func parsePlan(args []string) (plan, error) {
	var p plan
	f := flag.NewFlagSet("bench", flag.ExitOnError)
	servers := f.String("servers", "floor,tollgate", "what to measure: floor, tollgate (the gRPC listener), fast (the fast one), these two also with -observed (all is told) or -silent (nothing is); ratios refer to the first")
	apis := f.String("api", "check,ratelimit", "calls: check, ratelimit")
	consumers := f.String("consumers", "1000,1000000", "numbers of consumers, each with a limit of its own")
	mixes := f.String("mix", "admitted,refused", "limits that admit all or refuse nearly all")
	streams := f.String("streams", "1,8,64", "closed loop: requests in flight, over all connections")
	rates := f.String("rates", "", "open loop: requests a second")
	f.IntVar(&p.rounds, "rounds", 3, "rounds; medians are printed")
	f.IntVar(&p.load.Connections, "connections", 4, "connections (fewer where there are fewer streams)")
	f.DurationVar(&p.load.Run, "time", 3*time.Second, "how long a run counts")
	f.DurationVar(&p.load.Warm, "warm", time.Second, "how long a run warms up before")
	f.StringVar(&p.tollgate, "tollgate", "bin/tollgate", "the tollgate binary")
	if err := f.Parse(args); err != nil {
		return p, err
	}
	p.servers, p.apis, p.mixes = words(*servers), words(*apis), words(*mixes)
	var err error
	if p.consumers, err = parseAll(*consumers, strconv.Atoi); err != nil {
		return p, err
	}
	if p.streams, err = parseAll(*streams, strconv.Atoi); err != nil {
		return p, err
	}
	p.rates, err = parseAll(*rates, func(s string) (float64, error) { return strconv.ParseFloat(s, 64) })
	return p, err
}

func words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

func parseAll[T any](list string, parse func(string) (T, error)) ([]T, error) {
	var all []T
	for _, w := range words(list) {
		v, err := parse(w)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// loads lists the ways to drive a server.
func (p plan) loads() []load {
	var all []load
	for _, streams := range p.streams {
		l := p.load
		l.Connections = min(l.Connections, streams)
		l.Streams = streams / l.Connections
		all = append(all, l)
	}
	for _, rate := range p.rates {
		l := p.load
		l.Rate = rate
		all = append(all, l)
	}
	return all
}
