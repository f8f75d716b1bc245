package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	r := reloader{many: m, config: filepath.Join(dir, "tollgate.yaml"), http: t.targets["http"], service: &s}
	for _, listener := range []string{"fast", "tollgate"} {
		failed = errors.Join(failed, r.run(w, t.targets[listener], listener))
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
