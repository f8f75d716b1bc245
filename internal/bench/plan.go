package main

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// plan is what to measure: every server under every load, in rounds.
type plan struct {
	servers   []string
	apis      []string
	consumers []int
	mixes     []string
	streams   []int
	half      bool
	rates     []float64
	rounds    int
	load      load

	tollgate, ratelimit, limitador string              // programs
	others                         map[string][]string // other programs tollgate: environment and path
	profiles                       string              // a folder
}

func parsePlan(args []string) (plan, error) {
	var p plan
	f := flag.NewFlagSet("bench", flag.ExitOnError)
	servers := f.String("servers", "floor,tollgate,fast", "what to measure: floor, tollgate (the gRPC listener), fast (the fast one), these two also with -unix (socket files), -observed (all is told), -silent (nothing is) or -profiled (see -profiles); ratios refer to the first")
	apis := f.String("api", "check,ratelimit", "calls: check, ratelimit")
	consumers := f.String("consumers", "1000,1000000", "numbers of consumers, each with a limit of its own")
	mixes := f.String("mix", "admitted,refused", "limits that admit all or refuse nearly all")
	streams := f.String("streams", "1,8,64", "closed loops: requests in flight, over all connections")
	f.BoolVar(&p.half, "half", true, "an open loop at half the rate that the first server reached in the last closed loop")
	rates := f.String("rates", "5000,20000", "open loops: requests a second")
	f.IntVar(&p.rounds, "rounds", 5, "rounds; medians are printed")
	f.IntVar(&p.load.Connections, "connections", 4, "connections (fewer where there are fewer streams)")
	f.DurationVar(&p.load.Run, "time", time.Second, "how long a run counts")
	f.DurationVar(&p.load.Warm, "warm", 250*time.Millisecond, "how long a run warms up before")
	f.StringVar(&p.tollgate, "tollgate", "bin/tollgate", "the `program` tollgate")
	f.StringVar(&p.ratelimit, "ratelimit", "", "the server `program` of envoyproxy/ratelimit: measure it too, with a redis-server from the PATH")
	f.StringVar(&p.limitador, "limitador", "", "the `program` limitador-server: measure it too, with its counters in memory")
	f.StringVar(&p.profiles, "profiles", ".", "the `folder` where -profiled servers leave CPU profiles")
	p.others = map[string][]string{}
	f.Func("also", "another `tollgate` to measure beside, as NAME=[VARIABLE=VALUE …] PROGRAM; may be given again", func(s string) error {
		name, rest, _ := strings.Cut(s, "=")
		if p.others[name] = strings.Fields(rest); name == "" || len(p.others[name]) == 0 {
			return fmt.Errorf("want NAME=[VARIABLE=VALUE …] PROGRAM")
		}
		return nil
	})
	short := f.Bool("quick", false, "a minute's worth, unless said otherwise: 1000 consumers, 64 streams, no open loop, 3 rounds")
	if err := f.Parse(args); err != nil {
		return p, err
	}
	if *short {
		said := map[string]bool{}
		f.Visit(func(set *flag.Flag) { said[set.Name] = true })
		for _, usual := range [][2]string{{"consumers", "1000"}, {"streams", "64"}, {"half", "false"}, {"rates", ""}, {"rounds", "3"}} {
			if name, value := usual[0], usual[1]; !said[name] {
				_ = f.Set(name, value) // these are values of these flags
			}
		}
	}
	p.servers, p.apis, p.mixes = words(*servers), words(*apis), words(*mixes)
	p.servers = append(p.servers, slices.Sorted(maps.Keys(p.others))...)
	if p.ratelimit != "" {
		p.servers = append(p.servers, "ratelimit")
	}
	if p.limitador != "" {
		p.servers = append(p.servers, "limitador")
	}
	var err error
	if p.consumers, err = parseAll(*consumers, strconv.Atoi); err != nil {
		return p, err
	}
	if p.streams, err = parseAll(*streams, strconv.Atoi); err != nil {
		return p, err
	}
	if p.rates, err = parseAll(*rates, func(s string) (float64, error) { return strconv.ParseFloat(s, 64) }); err != nil {
		return p, err
	}
	return p, p.check()
}

func (p plan) check() error {
	for _, api := range p.apis {
		if _, ok := calls[api]; !ok {
			return fmt.Errorf("unknown call %q: want check or ratelimit", api)
		}
	}
	for _, mix := range p.mixes {
		if _, ok := limitsOf[mix]; !ok {
			return fmt.Errorf("unknown mix %q: want admitted or refused", mix)
		}
	}
	if len(p.servers) == 0 || len(p.apis) == 0 || len(p.consumers) == 0 || len(p.mixes) == 0 || p.rounds < 1 || p.load.Connections < 1 {
		return fmt.Errorf("nothing to measure: name servers, calls, consumers, mixes, and at least one round and connection")
	}
	if slices.Min(p.consumers) < 1 || len(p.streams) > 0 && slices.Min(p.streams) < 1 {
		return fmt.Errorf("consumers and streams: want at least 1")
	}
	return nil
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
		l.Name = closedLoop(streams)
		all = append(all, l)
	}
	open := p.load
	if p.half && len(p.streams) > 0 {
		open.Half, open.Name = true, halfLoad
		all = append(all, open)
	}
	open.Half = false
	for _, rate := range p.rates {
		open.Rate, open.Name = rate, openLoop(rate)
		all = append(all, open)
	}
	return all
}

// The names of loads.
const halfLoad = "open loop at half load"

func closedLoop(streams int) string { return fmt.Sprintf("%d in flight", streams) }
func openLoop(rate float64) string  { return fmt.Sprintf("open loop at %.0f/s", rate) }
