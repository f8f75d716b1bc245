package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/embedded"
	"github.com/tollgate-dev/tollgate/internal/server"
	"github.com/tollgate-dev/tollgate/limits"
)

// limitsOf is what a consumer, and a descriptor, may do in a mix.
var limitsOf = map[string]struct {
	consumer, rule string
	perHour        int // what the rule says
}{
	"admitted": {"1000000/s", "{unit: hour, requests_per_unit: 1000000000}", 1_000_000_000},
	"refused":  {"1/h", "{unit: hour, requests_per_unit: 1}", 1},
}

// planName is of the plan that all consumers are on, so that one store serves every mix.
const planName = "bench"

const configuration = `listen: {grpc: %q, fast: %q, http: %q, drain: 0s}
limits: {warm_up: {grace: 0s, ramp: 0s}, cache: {size: %d}}
plans: {%s: {limits: [{rate: %s}]}}
rules: {files: [rules.yaml]}
telemetry: {traces: %s, log: {level: %s}}
`

const ruleFile = `domain: bench
descriptors:
  - key: user
    rate_limit: %s
`

// tollgate is one that runs.
type tollgate struct {
	targets map[string]string // by listener
	service *service
}

// startTollgates starts a Tollgate for each number of consumers and each mix,
// unless one runs already. What is measured is the listener that the name
// tells, "tollgate" or "fast". With "-unix" it is a socket file; with
// "-observed" all is told that can be but traces, which are not sampled, with
// "-silent" nothing, which no configuration asks for; with "-profiled" a CPU
// profile is left behind.
func (p plan) startTollgates(name, dir string, running map[string]tollgate, begin func() *service) (subjects []subject, err error) {
	listener, told, _ := strings.Cut(name, "-")
	if p.others[name] != nil {
		listener, told = "tollgate", name
	} else if listener != "tollgate" && listener != "fast" || !slices.Contains([]string{"", "unix", "observed", "silent", "profiled"}, told) {
		return nil, errors.New("unknown server: want floor, tollgate or fast, the last two also with -unix, -observed, -silent or -profiled")
	}
	for _, count := range p.consumers {
		for _, mix := range p.mixes {
			key := fmt.Sprintf("tollgate%s-%d-%s", told, count, mix)
			t, ok := running[key]
			if !ok {
				if t, err = p.startTollgate(filepath.Join(dir, key), told, count, mix, begin()); err != nil {
					return nil, err
				}
				running[key] = t
			}
			subjects = append(subjects, subject{server: name, consumers: count, mix: mix, apis: p.apis, target: t.targets[listener], service: t.service})
		}
	}
	return subjects, nil
}

func (p plan) startTollgate(dir, told string, count int, mix string, s *service) (tollgate, error) {
	t := tollgate{targets: map[string]string{}, service: s}
	addresses, err := freeAddresses(3)
	if err != nil {
		return t, err
	}
	for i, listener := range []string{"tollgate", "fast", "http"} {
		t.targets[listener] = addresses[i]
		if told == "unix" && listener != "http" {
			t.targets[listener] = "unix:" + filepath.Join(dir, listener)
		}
	}
	traces, level := "none", "warn"
	if told == "observed" {
		traces, level = "otlp", "info"
	}
	config := filepath.Join(dir, "tollgate.yaml")
	if err := errors.Join(
		os.Mkdir(dir, 0o700),
		p.store(dir, count),
		os.WriteFile(config, fmt.Appendf(nil, configuration, t.targets["tollgate"], t.targets["fast"], t.targets["http"], count+1, planName, limitsOf[mix].consumer, traces, level), 0o600),
		os.WriteFile(filepath.Join(dir, "rules.yaml"), fmt.Appendf(nil, ruleFile, limitsOf[mix].rule), 0o600),
	); err != nil {
		return t, err
	}
	if told == "unix" {
		told = ""
	}
	var env []string
	program := p.tollgate
	if other, ok := p.others[told]; ok {
		env, program = other[:len(other)-1], other[len(other)-1]
		told = ""
	}
	command := []string{program, "serve", "--config", config, "--data-dir", dir}
	if told != "" { // all of these are this program, so that nothing else differs
		self, err := os.Executable()
		if err != nil {
			return t, err
		}
		if told == "profiled" {
			told = filepath.Join(p.profiles, filepath.Base(dir)+".pprof")
		}
		command = []string{self, "serve", told, config, dir}
	}
	return t, s.start(t.targets["tollgate"], env, command...)
}

// serveTollgate serves until it is interrupted. It tells of all decisions
// ("observed") or of none ("silent"), or writes a CPU profile to a file.
func serveTollgate(told, config, dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	// No trace is sampled where the caller's is not: these callers have none.
	for name, value := range map[string]string{"OTEL_TRACES_SAMPLER": "parentbased_always_off", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	s, err := server.Start(ctx, server.Options{ConfigPath: config, DataDir: dir, Unobserved: told == "silent"})
	if err != nil {
		return err
	}
	if strings.HasSuffix(told, ".pprof") {
		f, err := os.Create(told)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			return err
		}
		defer f.Close()
		defer pprof.StopCPUProfile()
	}
	select {
	case err := <-s.Failed():
		return err
	case <-ctx.Done():
		return nil
	}
}

// store puts a store of so many consumers into a data directory. It is filled
// once, since a million take a while.
func (p plan) store(dir string, count int) error {
	filled := filepath.Join(filepath.Dir(dir), fmt.Sprintf("%d.db", count))
	if _, err := os.Stat(filled); errors.Is(err, fs.ErrNotExist) {
		if err := fill(filled, count); err != nil {
			return err
		}
	}
	content, err := os.ReadFile(filled)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "tollgate.db"), content, 0o600)
}

// fill makes an embedded store of consumers with a token each.
func fill(path string, count int) error {
	registry := consumers.NewRegistry(consumers.RegistryOptions{})
	db, err := embedded.Open(path, embedded.Options{Clock: limits.NewClock()})
	if err != nil {
		return err
	}
	store, err := db.Consumers(registry, map[string]consumers.Plan{planName: {}})
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
				_, err := store.Put(context.Background(), consumers.Consumer{ID: id, Plan: planName}, consumers.IfAbsent)
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
