package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// many measures what many consumers cost beside CPU: how long a start takes, how
// much memory they need, and what callers notice of a reload.
type many struct {
	plan
	count int
	rate  float64
}

// The goals of a million consumers.
const (
	startWithin  = 5 * time.Second
	memoryWithin = 300_000_000 // bytes
	stepWithin   = 1.10        // p99 with a reload, of that without
)

// runMany is bench many.
func runMany(args []string, w io.Writer) error {
	var m many
	f := flag.NewFlagSet("bench many", flag.ExitOnError)
	f.IntVar(&m.count, "consumers", 1_000_000, "number of consumers")
	f.Float64Var(&m.rate, "rate", 5000, "requests a second while files are reloaded")
	f.IntVar(&m.rounds, "rounds", 5, "rounds; medians are printed")
	f.DurationVar(&m.load.Run, "time", 5*time.Second, "how long a run counts; a reload comes in its midst")
	f.StringVar(&m.tollgate, "tollgate", "bin/tollgate", "the `program` tollgate")
	if err := f.Parse(args); err != nil {
		return err
	}
	m.load.Connections, m.load.Warm, m.load.Rate = 4, 500*time.Millisecond, m.rate
	return m.run(w)
}

func (m many) run(w io.Writer) error {
	dir, err := os.MkdirTemp("", "tollgate-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	dir = filepath.Join(dir, "tollgate")
	var s service
	defer func() { s.stop() }()
	t, err := m.startTollgate(dir, "", m.count, "admitted", &s) // which makes the store
	if err != nil {
		return err
	}
	command := s.processes[0].cmd.Args
	s.stop()
	s.processes = nil
	begin := time.Now()
	if err := s.start(t.targets["tollgate"], nil, command...); err != nil {
		return err
	}
	took := time.Since(begin)
	fmt.Fprintf(w, "%s consumers, ready after    %7.2f s   goal %v\n", grouped(m.count), took.Seconds(), startWithin)
	failed := m.memory(w, &s, "before anybody called")
	for _, listener := range []string{"fast", "tollgate"} {
		if err := touch(subject{target: t.targets[listener], consumers: m.count}, "check"); err != nil {
			return err
		}
		failed = errors.Join(failed, m.memory(w, &s, "after all called "+listener))
	}
	if took > startWithin {
		failed = errors.Join(failed, fmt.Errorf("the start took %v", took))
	}
	for _, listener := range []string{"fast", "tollgate"} {
		failed = errors.Join(failed, m.reloads(w, t.targets[listener], listener, filepath.Join(dir, "tollgate.yaml"), s.processes[0]))
	}
	return errors.Join(failed, m.memory(w, &s, "after the reloads"))
}

func (m many) memory(w io.Writer, s *service, when string) error {
	u, err := s.usage()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "resident %-22s %7.0f MB  goal %d MB\n", when, float64(u.Resident)/1e6, memoryWithin/1_000_000)
	if u.Resident > memoryWithin {
		return fmt.Errorf("%d bytes are resident %s", u.Resident, when)
	}
	return nil
}

// A reload, by what it changes in the configuration.
var reloads = []struct {
	name     string
	from, to string // text of the configuration; each reload changes it back
}{
	{name: "none"},
	{"as it is", "level: warn", "level: warn"},
	{"another default limit", "limits: {", "limits: {default: 7/s, "},
	{"another limit of all", "warm_up: {grace: 0s", "warm_up: {grace: 1s"},
}

// reloads measures, in rounds, calls without and with a reload in their midst.
func (m many) reloads(w io.Writer, target, listener, config string, p *process) error {
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	seen := make([][]figures, len(reloads))
	for range m.rounds {
		for i, r := range reloads {
			sources, err := sourcesOf(calls["check"], m.count, m.load.Connections)
			if err != nil {
				return err
			}
			var reloaded chan error
			at := func() {
				if r.name == "none" || reloaded != nil {
					return
				}
				reloaded = make(chan error, 1)
				time.AfterFunc(m.load.Run/3, func() {
					changed := bytes.Replace(text, []byte(r.from), []byte(r.to), 1)
					reloaded <- errors.Join(os.WriteFile(config, changed, 0o600), p.cmd.Process.Signal(syscall.SIGHUP))
				})
			}
			f, err := measure(target, calls["check"], m.load, sources, func() (usage, error) { at(); return p.usage() })
			if reloaded != nil {
				err = errors.Join(err, <-reloaded)
			}
			if err = errors.Join(err, os.WriteFile(config, text, 0o600)); err != nil {
				return err
			}
			seen[i] = append(seen[i], f)
			time.Sleep(time.Second) // the file that was put back is reloaded, too
		}
	}
	var failed error
	for i, r := range reloads {
		f := median(seen[i])
		step := ratio(seen[i], seen[0], func(f figures) float64 { return float64(f.p99) })
		fmt.Fprintf(w, "%s, %.0f/s, reload: %-22s failed %d, p99 %6d µs, of that without %.2f   goal 0, %.2f\n",
			listener, m.rate, r.name, f.failed, f.p99.Microseconds(), step, stepWithin)
		if f.failed > 0 || step > stepWithin {
			failed = errors.Join(failed, fmt.Errorf("%s: reload %s: %d failed, step %.2f", listener, r.name, f.failed, step))
		}
	}
	return failed
}
