package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// figures is what one run of one server gave.
type figures struct {
	cpu      time.Duration // per answered request
	rate     float64       // answers a second
	p50, p99 time.Duration
	late     time.Duration // p99 of how late the generator sent
	refused  float64       // share of the answers
	failed   int64
	resident int64
}

// results are the figures of every round.
type results map[cell][]figures

// cell is a subject under a load.
type cell struct{ api, load, subject string }

// median takes each figure's median over the rounds; failures add up.
func median(rounds []figures) figures {
	var failed int64
	for _, f := range rounds {
		failed += f.failed
	}
	return figures{
		cpu:      mid(rounds, func(f figures) time.Duration { return f.cpu }),
		rate:     mid(rounds, func(f figures) float64 { return f.rate }),
		p50:      mid(rounds, func(f figures) time.Duration { return f.p50 }),
		p99:      mid(rounds, func(f figures) time.Duration { return f.p99 }),
		late:     mid(rounds, func(f figures) time.Duration { return f.late }),
		refused:  mid(rounds, func(f figures) float64 { return f.refused }),
		resident: mid(rounds, func(f figures) int64 { return f.resident }),
		failed:   failed,
	}
}

func mid[T cmp.Ordered, E any](rounds []E, of func(E) T) T {
	all := make([]T, len(rounds))
	for i, f := range rounds {
		all[i] = of(f)
	}
	if len(all) == 0 {
		var zero T
		return zero
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// The figures that ratios are made of.
func cpuOf(f figures) float64  { return float64(f.cpu) }
func rateOf(f figures) float64 { return f.rate }
func p99Of(f figures) float64  { return float64(f.p99) }

// ratio is the median of each round's ratio of a to b: what disturbs a round
// disturbs both.
func ratio(a, b []figures, of func(figures) float64) float64 {
	ratios := make([]float64, 0, len(a))
	for i := range min(len(a), len(b)) {
		if of(b[i]) > 0 {
			ratios = append(ratios, of(a[i])/of(b[i]))
		}
	}
	return mid(ratios, func(r float64) float64 { return r })
}

// report prints one load's table: a row for each server, with ratios to the
// first server in the same state.
func report(w io.Writer, api string, l load, subjects []subject, all results) error {
	t := table{header: []string{api + ", " + l.Name, "CPU µs", "ratio", "req/s", "ratio", "p50 µs", "p99 µs", "ratio", "sent late µs", "refused", "failed", "MiB"}}
	if l.Half {
		t.header[0] += fmt.Sprintf(" (%.0f/s)", l.Rate)
	}
	for _, s := range subjects {
		rounds := all[cell{api, l.Name, s.String()}]
		base := all[cell{api, l.Name, baseOf(s, subjects).String()}]
		f := median(rounds)
		late := "" // a closed loop sends when it can
		if l.Rate > 0 {
			late = strconv.FormatInt(f.late.Microseconds(), 10)
		}
		t.add(s.String(), fmt.Sprintf("%.2f", f.cpu.Seconds()*1e6), fmt.Sprintf("%.2f", ratio(rounds, base, cpuOf)),
			fmt.Sprintf("%.0f", f.rate), fmt.Sprintf("%.2f", ratio(rounds, base, rateOf)),
			strconv.FormatInt(f.p50.Microseconds(), 10), strconv.FormatInt(f.p99.Microseconds(), 10), fmt.Sprintf("%.2f", ratio(rounds, base, p99Of)), late,
			fmt.Sprintf("%.0f %%", 100*f.refused), strconv.FormatInt(f.failed, 10), strconv.FormatInt(f.resident>>20, 10))
	}
	return t.print(w)
}

// baseOf finds the first server's row that s is compared with: the one in the
// same state, if it has states.
func baseOf(s subject, subjects []subject) subject {
	for _, b := range subjects {
		if b.server == subjects[0].server && (b.mix == "" || b.consumers == s.consumers && b.mix == s.mix) {
			return b
		}
	}
	return subjects[0]
}

// table is printed as Markdown, in columns.
type table struct {
	header []string
	rows   [][]string
}

func (t *table) add(row ...string) { t.rows = append(t.rows, row) }

func (t *table) print(w io.Writer) error {
	width := make([]int, len(t.header))
	for _, row := range append([][]string{t.header}, t.rows...) {
		for i, text := range row {
			width[i] = max(width[i], len([]rune(text)))
		}
	}
	var b strings.Builder
	line := func(row []string) {
		for i, text := range row {
			space := strings.Repeat(" ", width[i]-len([]rune(text)))
			if i == 0 {
				text, space = space, text
			}
			b.WriteString("| " + space + text + " ")
		}
		b.WriteString("|\n")
	}
	line(t.header)
	for i := range width {
		b.WriteString("|" + strings.Repeat("-", width[i]+1) + map[bool]string{true: "-", false: ":"}[i == 0])
	}
	b.WriteString("|\n")
	for _, row := range t.rows {
		line(row)
	}
	b.WriteString("\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// machine tells where the figures are from.
func machine() string {
	model := "unknown processor"
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	average, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(average), " ")
	return fmt.Sprintf("%s, %s/%s, %d CPUs (%s), load average %s at the start", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), model, one)
}

// grouped writes a number with commas.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
