package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// run measures the whole plan. All servers run side by side and are driven in
// turn under each load, so that a machine whose speed drifts slows all of them,
// and every ratio is of figures that were taken within seconds of each other.
func (p plan) run(w io.Writer) error {
	dir, err := os.MkdirTemp("", "tollgate-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	fmt.Fprintf(w, "%s\n", machine())
	subjects, stop, err := p.startAll(dir)
	defer stop()
	if err != nil {
		return err
	}
	runs, took := p.length(subjects)
	fmt.Fprintf(w, "%d runs of %d servers in %d rounds, %v at least from now on\n\n", runs, len(subjects), p.rounds, took.Round(time.Second))
	all := results{}
	for _, api := range p.apis {
		if err := p.runCall(w, api, subjects, all); err != nil {
			return fmt.Errorf("%s: %w", api, err)
		}
	}
	return p.reportGoals(w, all)
}

// length is how many runs there will be, and how long they take.
func (p plan) length(subjects []subject) (runs int, took time.Duration) {
	for _, api := range p.apis {
		for _, s := range subjects {
			if s.serves(api) {
				runs += len(p.loads()) * p.rounds
			}
		}
	}
	return runs, time.Duration(runs) * (p.load.Warm + p.load.Run)
}

func (p plan) runCall(w io.Writer, api string, subjects []subject, all results) error {
	services := servicesOf(subjects)
	touched := map[*service]bool{}
	var asked []subject
	for _, s := range subjects {
		if !s.serves(api) {
			continue
		}
		if !touched[s.service] {
			touched[s.service] = true
			if err := touch(s, api); err != nil {
				if err = lost(w, s, "before any load", err); err != nil {
					return err
				}
				continue
			}
		}
		asked = append(asked, s)
	}
	var busiest string
	for _, l := range p.loads() {
		if len(asked) == 0 {
			return nil
		}
		if l.Half {
			l.Rate = median(all[cell{api, busiest, asked[0].String()}]).rate / 2
		}
		for range p.rounds {
			for _, s := range slices.Clone(asked) {
				still(services, stillWithin)
				f, err := p.measure(s, api, l)
				if err != nil {
					if err = lost(w, s, l.Name, err); err != nil {
						return err
					}
					asked = slices.DeleteFunc(asked, func(o subject) bool { return o.service == s.service })
					continue
				}
				at := cell{api, l.Name, s.String()}
				all[at] = append(all[at], f)
			}
		}
		if l.Rate == 0 {
			busiest = l.Name
		}
		if err := report(w, api, l, asked, all); err != nil {
			return err
		}
	}
	return nil
}

// stillWithin is how long the servers are waited for before a run.
const stillWithin = 3 * time.Second

// lost tells of a server that could not be measured and, where it is somebody
// else's, goes on without it: the error is nil.
func lost(w io.Writer, s subject, when string, err error) error {
	if !s.peer() {
		return fmt.Errorf("%s, %s: %w", s, when, err)
	}
	_, printed := fmt.Fprintf(w, "FAILED: %s, %s: %v; it is not measured any more\n\n", s, when, err)
	return printed
}

// sourcesOf returns a call's requests: each connection begins where the one before
// ends that makes its part of them.
func sourcesOf(c call, keys, connections int) ([]messages, error) {
	sources := make([]messages, connections)
	first := uint64(time.Now().UnixNano())
	for i := range sources {
		var err error
		if sources[i], err = c.make(keys, first+uint64(i*keys/connections)); err != nil {
			return nil, err
		}
	}
	return sources, nil
}

// touch has every consumer ask once, so that what is measured is a server in
// use, and not the first request of each.
func touch(s subject, api string) error {
	if s.consumers == 0 {
		return nil
	}
	l := load{Connections: 4, Streams: 16, Run: 200 * time.Millisecond}
	sources, err := sourcesOf(calls[api], s.consumers, l.Connections)
	if err != nil {
		return err
	}
	for answered := int64(0); answered < int64(s.consumers)*5/4; {
		r, err := drive(s.target, calls[api], l, sources, func() {})
		if err != nil {
			return err
		}
		answered += r.Answered
	}
	return nil
}

// measure drives one server once.
func (p plan) measure(s subject, api string, l load) (figures, error) {
	keys := s.consumers
	if keys == 0 {
		keys = p.consumers[0]
	}
	sources, err := sourcesOf(calls[api], keys, l.Connections)
	if err != nil {
		return figures{}, err
	}
	return measure(s.target, calls[api], l, sources, s.service.usage)
}

// errNoAnswer is what a run ends with that saw none.
var errNoAnswer = errors.New("no answer")

// measure drives a server. A run without an answer is done again: a machine
// that others use can stop all of it for a moment.
func measure(target string, c call, l load, sources []messages, usageNow func() (usage, error)) (f figures, err error) {
	for range 3 {
		if f, err = measureOnce(target, c, l, sources, usageNow); !errors.Is(err, errNoAnswer) {
			break
		}
	}
	return f, err
}

func measureOnce(target string, c call, l load, sources []messages, usageNow func() (usage, error)) (figures, error) {
	var used []usage
	var usageErr error
	r, err := drive(target, c, l, sources, func() {
		u, err := usageNow()
		used, usageErr = append(used, u), err
	})
	if err != nil {
		return figures{}, err
	}
	if usageErr != nil {
		return figures{}, usageErr
	}
	if r.Served == 0 {
		return figures{}, errNoAnswer
	}
	quantile := func(h *hdrhistogram.Histogram, q float64) time.Duration {
		return time.Duration(h.ValueAtQuantile(q)) * time.Microsecond
	}
	return figures{
		cpu:  (used[1].CPU - used[0].CPU) / time.Duration(r.Served),
		rate: float64(r.Served) / r.Elapsed.Seconds(),
		p50:  quantile(r.Latency, 50), p99: quantile(r.Latency, 99), late: quantile(r.Late, 99),
		refused: float64(r.Refused) / float64(max(r.Answered, 1)), failed: r.Failed,
		resident: used[1].Resident,
	}, nil
}
