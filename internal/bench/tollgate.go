package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/embedded"
	"github.com/tollgate-dev/tollgate/internal/server"
	"github.com/tollgate-dev/tollgate/limits"
)

// limitsOf is what a consumer, and a descriptor, may do in a mix.
var limitsOf = map[string]struct{ consumer, rule string }{
	"admitted": {"1000000/s", "{unit: hour, requests_per_unit: 1000000000}"},
	"refused":  {"1/h", "{unit: hour, requests_per_unit: 1}"},
}

const configuration = `listen: {grpc: "%s", http: "%s"%s}
limits: {warm_up: {grace: 0s, ramp: 0s}, cache: {size: %d}}
rules: {files: [rules.yaml]}
telemetry: {traces: %s, log: {level: %s}}
`

const ruleFile = `domain: bench
descriptors:
  - key: user
    rate_limit: %s
`

// newTollgate prepares a data directory and the configuration of a case. What
// is measured is the listener that the name tells, "tollgate" or "fast"; with
// "-observed", all is told that can be but traces, which are not sampled, with
// "-silent" nothing, which no configuration asks for.
func (p plan) newTollgate(name, dir, address string, count int, mix string) (subject, error) {
	limit, ok := limitsOf[mix]
	if !ok {
		return subject{}, fmt.Errorf("unknown mix %q: want admitted or refused", mix)
	}
	dir = filepath.Join(dir, fmt.Sprintf("%s-%s-%d", name, mix, count))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return subject{}, err
	}
	if err := p.store(dir, count, mix); err != nil {
		return subject{}, err
	}
	http, err := freeAddress()
	if err != nil {
		return subject{}, err
	}
	target, fast := address, ""
	listener, told, _ := strings.Cut(name, "-")
	if listener == "fast" {
		if target, err = freeAddress(); err != nil {
			return subject{}, err
		}
		fast = fmt.Sprintf(", fast: %q", target)
	}
	traces, level := "none", "warn"
	if told == "observed" {
		traces, level = "otlp", "info"
	}
	config := filepath.Join(dir, "tollgate.yaml")
	err = errors.Join(
		os.WriteFile(config, fmt.Appendf(nil, configuration, address, http, fast, count+1, traces, level), 0o600),
		os.WriteFile(filepath.Join(dir, "rules.yaml"), fmt.Appendf(nil, ruleFile, limit.rule), 0o600),
	)
	command := []string{p.tollgate, "serve", "--config", config, "--data-dir", dir}
	if told != "" { // both are this program, so that nothing else differs
		self, err := os.Executable()
		if err != nil {
			return subject{}, err
		}
		command = []string{self, told, config, dir}
	}
	return subject{command: command, target: target, ready: address}, err
}

// serveTollgate serves with or without telling of decisions, until it is killed.
func serveTollgate(told, config, dir string) error {
	// No trace is sampled where the caller's is not: these callers have none.
	for name, value := range map[string]string{"OTEL_TRACES_SAMPLER": "parentbased_always_off", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	s, err := server.Start(context.Background(), server.Options{ConfigPath: config, DataDir: dir, Unobserved: told == "silent"})
	if err != nil {
		return err
	}
	return <-s.Failed()
}

// store puts a store for a case into a data directory. It is filled once, since
// a million consumers take a while.
func (p plan) store(dir string, count int, mix string) error {
	filled := filepath.Join(filepath.Dir(dir), fmt.Sprintf("%s-%d.db", mix, count))
	if _, err := os.Stat(filled); errors.Is(err, fs.ErrNotExist) {
		if err := fill(filled, count, limitsOf[mix].consumer); err != nil {
			return err
		}
	}
	content, err := os.ReadFile(filled)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "tollgate.db"), content, 0o600)
}

// fill makes an embedded store of consumers with a token and a limit each.
func fill(path string, count int, limit string) error {
	l, err := consumers.ParseLimit(limit)
	if err != nil {
		return err
	}
	registry := consumers.NewRegistry(consumers.RegistryOptions{})
	db, err := embedded.Open(path, embedded.Options{Clock: limits.NewClock()})
	if err != nil {
		return err
	}
	store, err := db.Consumers(registry, nil)
	if err != nil {
		return errors.Join(err, db.Close())
	}
	// Many at once, since those share an fsync.
	numbers := make(chan int)
	errs := make(chan error, 1)
	var wg sync.WaitGroup
	for range 2000 {
		wg.Go(func() {
			for i := range numbers {
				id := fmt.Sprintf("consumer-%08d", i)
				_, err := store.Put(context.Background(), consumers.Consumer{ID: id, Limits: consumers.Limits{*l}}, consumers.IfAbsent)
				if err == nil {
					err = store.IssueToken(context.Background(), id, consumers.Token{ID: "bench", Hash: consumers.HashOf(token(i))})
				}
				if err != nil {
					select {
					case errs <- err:
					default:
					}
				}
			}
		})
	}
	for i := range count {
		numbers <- i
	}
	close(numbers)
	wg.Wait()
	close(errs)
	return errors.Join(<-errs, db.Close())
}

// freeAddress returns a loopback address that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
