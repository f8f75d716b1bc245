package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// printTable shows both results side by side.
func printTable(w io.Writer, without, with result) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	row := func(what string, a, b any) { fmt.Fprintf(t, "%s\t%v\t%v\t\n", what, a, b) }
	row("", "without Tollgate", "with Tollgate")
	row("secrets wanted", without.reads, with.reads)
	row("secrets read", without.succeeded, with.succeeded)
	row("calls that reached Keeper (billed)", len(without.calls), len(with.calls))
	row("of these throttled", without.throttled(), with.throttled())
	row("errors from the SDK", without.refusals, with.refusals)
	row("time", took(without), took(with))
	_ = t.Flush() // the writer's errors are the terminal's
}

func took(r result) string {
	if r.succeeded < r.reads {
		return fmt.Sprintf("given up after %.1f s", r.took.Seconds())
	}
	return fmt.Sprintf("%.1f s", r.took.Seconds())
}

const (
	width, height  = 900, 190 // of one panel
	left, bins     = 60, 140
	taken, refused = "#2a9d5c", "#d1495b"
)

// plot draws, for each result, the calls that reached Keeper over time.
func plot(results map[string]result, order []string) string {
	var longest time.Duration
	most := 1
	for _, r := range results {
		longest = max(longest, r.took)
	}
	counted := map[string][bins][2]int{}
	for name, r := range results {
		var n [bins][2]int
		for _, c := range r.calls {
			i := min(int(float64(c.At.Sub(r.start))/float64(longest)*bins), bins-1)
			if c.Taken {
				n[i][0]++
			} else {
				n[i][1]++
			}
			most = max(most, n[i][0]+n[i][1])
		}
		counted[name] = n
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="13">`+"\n", width, len(order)*height+30)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	for i, name := range order {
		panel(&b, name, results[name], counted[name], i*height, most, longest)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d">seconds; calls that reached Keeper: <tspan fill="%s">taken</tspan>, <tspan fill="%s">throttled</tspan></text>`+"\n</svg>\n",
		left, len(order)*height+20, taken, refused)
	return b.String()
}

func panel(b *strings.Builder, name string, r result, n [bins][2]int, top, most int, longest time.Duration) {
	bottom, scale := top+height-30, float64(height-70)/float64(most)
	fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="bold">%s: %d of %d secrets, %d calls, %d throttled, %s</text>`+"\n",
		left, top+22, name, r.succeeded, r.reads, len(r.calls), r.throttled(), took(r))
	fmt.Fprintf(b, `<path d="M%d %dV%dH%d" fill="none" stroke="black"/>`+"\n", left, top+35, bottom, width-10)
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%d</text>`+"\n", left-6, top+45, most)
	step := float64(width-10-left) / bins
	for i, c := range n {
		x, y := float64(left)+float64(i)*step, float64(bottom)
		for kind, colour := range []string{taken, refused} {
			if h := float64(c[kind]) * scale; h > 0 {
				y -= h
				fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x, y, step-1, h, colour)
			}
		}
	}
	for i := range 6 {
		at := longest * time.Duration(i) / 5
		fmt.Fprintf(b, `<text x="%.0f" y="%d" text-anchor="middle">%.1f</text>`+"\n", float64(left)+float64(i)/5*float64(width-30-left), bottom+16, at.Seconds())
	}
}
