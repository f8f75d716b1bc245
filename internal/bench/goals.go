package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// goal is a bound on ratios. It is met when the largest of them is within it.
type goal struct {
	what  string
	bound float64
	of    func(figures) float64
	pairs []pair
}

// pair is what is divided by what, in one load of one call.
type pair struct {
	api, load       string
	subject, beside string
}

// saturated is the load that CPU per request is promised at: enough in flight
// that a server is never idle, and what a request costs is not what waking up costs.
var saturated = closedLoop(64)

// goals are those of the issues that built the two listeners.
func (p plan) goals() []goal {
	var all []goal
	add := func(what string, bound float64, of func(figures) float64, pairs []pair) {
		all = append(all, goal{what, bound, of, pairs})
	}
	for _, g := range []struct {
		server           string
		check, ratelimit float64
	}{{"tollgate", 0.65, 0.7}, {"fast", 0.25, 0.25}} {
		add(g.server+" Check beside floor, CPU", g.check, cpuOf, p.beside(g.server, "floor", "check", saturated))
		add(g.server+" ShouldRateLimit beside floor, CPU", g.ratelimit, cpuOf, p.beside(g.server, "floor", "ratelimit", saturated))
		for _, api := range p.apis {
			add(fmt.Sprintf("%s %s, 1,000,000 consumers beside 1,000, CPU", g.server, api), 1.15, cpuOf, p.moreConsumers(g.server, api))
		}
	}
	for _, api := range p.apis {
		add("tollgate "+api+", refused beside admitted, CPU", 1.1, cpuOf, p.refusals("tollgate", api))
	}
	add("tollgate beside floor at half load, p99", 1.15, p99Of, append(p.beside("tollgate", "floor", "check", halfLoad), p.beside("tollgate", "floor", "ratelimit", halfLoad)...))
	for _, api := range p.apis {
		add("fast "+api+" beside floor at 5,000/s, CPU", 0.6, cpuOf, p.beside("fast", "floor", api, openLoop(5000)))
		add("fast "+api+" beside floor at 20,000/s, p99", 0.5, p99Of, p.beside("fast", "floor", api, openLoop(20000)))
	}
	for _, listener := range []string{"tollgate", "fast"} {
		for _, api := range p.apis {
			add(listener+" "+api+", telling all beside telling nothing, CPU", 1.1, cpuOf, p.beside(listener+"-observed", listener+"-silent", api, saturated))
		}
	}
	add("tollgate beside envoyproxy/ratelimit and its Redis, CPU", 0.25, cpuOf, p.beside("tollgate", "ratelimit", "ratelimit", saturated))
	add("fast beside Limitador, CPU", 0.35, cpuOf, p.beside("fast", "limitador", "ratelimit", saturated))
	return all
}

// beside pairs a server with another, in the same state if that one has states,
// with the first number of consumers: what more of them may cost is a goal of its
// own.
func (p plan) beside(server, other, api, load string) (pairs []pair) {
	count := p.consumers[0]
	for _, mix := range p.mixes {
		b := subject{server: other}
		if other != "floor" {
			b.consumers, b.mix = count, mix
		}
		pairs = append(pairs, p.pair(api, load, subject{server: server, consumers: count, mix: mix}, b))
	}
	return pairs
}

func (p plan) moreConsumers(server, api string) (pairs []pair) {
	for _, mix := range p.mixes {
		pairs = append(pairs, p.pair(api, saturated, subject{server: server, consumers: 1_000_000, mix: mix}, subject{server: server, consumers: 1000, mix: mix}))
	}
	return pairs
}

func (p plan) refusals(server, api string) (pairs []pair) {
	for _, count := range p.consumers {
		pairs = append(pairs, p.pair(api, saturated, subject{server: server, consumers: count, mix: "refused"}, subject{server: server, consumers: count, mix: "admitted"}))
	}
	return pairs
}

func (p plan) pair(api, load string, s, beside subject) pair {
	return pair{api: api, load: load, subject: s.String(), beside: beside.String()}
}

// reportGoals prints each goal, what came out, and whether it is met.
func (p plan) reportGoals(w io.Writer, all results) error {
	t := table{header: []string{"goal", "at most", "measured", "met"}}
	for _, g := range p.goals() {
		low, high := math.Inf(1), 0.0
		for _, pair := range g.pairs {
			a, b := all[cell{pair.api, pair.load, pair.subject}], all[cell{pair.api, pair.load, pair.beside}]
			if len(a) == 0 || len(b) == 0 {
				continue
			}
			r := ratio(a, b, g.of)
			low, high = min(low, r), max(high, r)
		}
		if high == 0 {
			continue
		}
		t.add(g.what, fmt.Sprintf("%.2f", g.bound), span(low, high), verdict(high <= g.bound))
	}
	if failures := all.failed(); len(failures) > 0 {
		t.add("requests that failed: "+strings.Join(failures, "; "), "0", "", "no")
	} else {
		t.add("requests that failed", "0", "0", "yes")
	}
	return t.print(w)
}

func span(low, high float64) string {
	a, b := fmt.Sprintf("%.2f", low), fmt.Sprintf("%.2f", high)
	if a == b {
		return a
	}
	return a + " to " + b
}

func verdict(met bool) string {
	if met {
		return "yes"
	}
	return "no"
}

// failed lists where requests of ours failed. Other services may be asked for
// more than they can do.
func (all results) failed() (where []string) {
	for at, rounds := range all {
		if strings.HasPrefix(at.subject, "ratelimit") || strings.HasPrefix(at.subject, "limitador") {
			continue
		}
		if n := median(rounds).failed; n > 0 {
			where = append(where, fmt.Sprintf("%d of %s, %s, %s", n, at.subject, at.api, at.load))
		}
	}
	slices.Sort(where)
	return where
}
