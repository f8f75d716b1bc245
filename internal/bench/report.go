package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// figures is what one run of one server gave.
type figures struct {
	cpu      time.Duration // per answered request
	rate     float64       // answers a second
	p50, p99 time.Duration
	refused  float64 // share of the answers
	failed   int64
	resident int64
}

// median takes each figure's median over the rounds.
func median(rounds []figures) figures {
	return figures{
		cpu:      mid(rounds, func(f figures) time.Duration { return f.cpu }),
		rate:     mid(rounds, func(f figures) float64 { return f.rate }),
		p50:      mid(rounds, func(f figures) time.Duration { return f.p50 }),
		p99:      mid(rounds, func(f figures) time.Duration { return f.p99 }),
		refused:  mid(rounds, func(f figures) float64 { return f.refused }),
		failed:   mid(rounds, func(f figures) int64 { return f.failed }),
		resident: mid(rounds, func(f figures) int64 { return f.resident }),
	}
}

func mid[T cmp.Ordered](rounds []figures, of func(figures) T) T {
	all := make([]T, len(rounds))
	for i, f := range rounds {
		all[i] = of(f)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// report prints one case: a row for each server, with ratios to the first.
func report(w io.Writer, title string, servers []string, rounds map[string][]figures) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%s\tCPU µs/req\tratio\treq/s\tratio\tp50 µs\tp99 µs\tratio\trefused\tfailed\tMiB\t\n", title)
	base := median(rounds[servers[0]])
	for _, name := range servers {
		f := median(rounds[name])
		fmt.Fprintf(t, "%s\t%.2f\t%.2f\t%.0f\t%.2f\t%d\t%d\t%.2f\t%.0f %%\t%d\t%d\t\n", name,
			float64(f.cpu)/float64(time.Microsecond), ratio(f.cpu, base.cpu), f.rate, ratio(f.rate, base.rate),
			f.p50.Microseconds(), f.p99.Microseconds(), ratio(f.p99, base.p99), 100*f.refused, f.failed, f.resident>>20)
	}
	fmt.Fprintln(t)
	return t.Flush()
}

func ratio[T time.Duration | float64](a, b T) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}
