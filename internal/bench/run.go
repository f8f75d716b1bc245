package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// run measures the whole plan. Servers of one case run side by side and are
// driven in turn, so that a machine whose speed drifts slows all of them.
func (p plan) run(w io.Writer) error {
	dir, err := os.MkdirTemp("", "tollgate-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for _, consumers := range p.consumers {
		for _, mix := range p.mixes {
			if err := p.runCase(w, dir, consumers, mix); err != nil {
				return fmt.Errorf("%d consumers, %s: %w", consumers, mix, err)
			}
		}
	}
	return nil
}

func (p plan) runCase(w io.Writer, dir string, consumers int, mix string) error {
	targets := map[string]string{}
	processes := map[string]*process{}
	defer func() {
		for _, p := range processes {
			p.stop()
		}
	}()
	for _, name := range p.servers {
		s, err := p.newServer(name, dir, consumers, mix)
		if err != nil {
			return err
		}
		if processes[name], err = start(s.ready, s.command...); err != nil {
			return err
		}
		targets[name] = s.target
	}
	for _, api := range p.apis {
		for _, name := range p.servers {
			if err := touch(targets[name], api, consumers); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		for _, l := range p.loads() {
			rounds := map[string][]figures{}
			for range p.rounds {
				for _, name := range p.servers {
					f, err := measure(processes[name], targets[name], api, l, consumers)
					if err != nil {
						return fmt.Errorf("%s: %w", name, err)
					}
					rounds[name] = append(rounds[name], f)
				}
			}
			title := fmt.Sprintf("%s, %d consumers, %s, %s", api, consumers, mix, l)
			if err := report(w, title, p.servers, rounds); err != nil {
				return err
			}
		}
	}
	return nil
}

// requestsOf returns the call of an API and its requests, which begin in another
// place for each connection.
func requestsOf(api string, consumers, connections int) (path string, sources []messages, err error) {
	path, requests := checkPath, newCheck
	if api == "ratelimit" {
		path, requests = ratelimitPath, newRateLimit
	}
	sources = make([]messages, connections)
	for i := range sources {
		if sources[i], err = requests(consumers, uint64(time.Now().UnixNano())+uint64(i*consumers/connections)); err != nil {
			return "", nil, err
		}
	}
	return path, sources, nil
}

// touch has every consumer ask once, so that what is measured is a server in
// use, and not the first request of each.
func touch(target, api string, consumers int) error {
	l := load{Connections: 4, Streams: 16, Run: 200 * time.Millisecond}
	path, sources, err := requestsOf(api, consumers, l.Connections)
	if err != nil {
		return err
	}
	for answered := int64(0); answered < int64(consumers)*5/4; {
		r, err := drive(target, path, l, func(i int) messages { return sources[i] }, func() {})
		if err != nil {
			return err
		}
		answered += r.Answered
	}
	return nil
}

// measure drives one server once.
func measure(server *process, target, api string, l load, consumers int) (figures, error) {
	path, sources, err := requestsOf(api, consumers, max(1, l.Connections))
	if err != nil {
		return figures{}, err
	}
	var used []usage
	var usageErr error
	r, err := drive(target, path, l, func(i int) messages { return sources[i] }, func() {
		u, err := server.usage()
		used, usageErr = append(used, u), err
	})
	if err != nil {
		return figures{}, err
	}
	if usageErr != nil {
		return figures{}, usageErr
	}
	if r.Answered == 0 {
		return figures{}, fmt.Errorf("no answer in %s", l.Run)
	}
	quantile := func(q float64) time.Duration {
		return time.Duration(r.Latency.ValueAtQuantile(q)) * time.Microsecond
	}
	return figures{
		cpu:  (used[1].CPU - used[0].CPU) / time.Duration(r.Answered),
		rate: float64(r.Answered) / r.Elapsed.Seconds(),
		p50:  quantile(50), p99: quantile(99),
		refused: float64(r.Refused) / float64(r.Answered), failed: r.Failed,
		resident: used[1].Resident,
	}, nil
}

// subject is a server: how to start it and where to reach it.
type subject struct {
	command []string
	target  string // what is measured
	ready   string // what listens once it is ready
}

func (p plan) newServer(name, dir string, consumers int, mix string) (subject, error) {
	address, err := freeAddress()
	if err != nil {
		return subject{}, err
	}
	switch name {
	case "floor":
		self, err := os.Executable()
		return subject{command: []string{self, "floor", address}, target: address, ready: address}, err
	case "tollgate", "fast", "tollgate-observed", "fast-observed", "tollgate-silent", "fast-silent":
		return p.newTollgate(name, dir, address, consumers, mix)
	}
	return subject{}, fmt.Errorf("unknown server %q: want floor, tollgate or fast, the last two also with -observed or -silent", name)
}
