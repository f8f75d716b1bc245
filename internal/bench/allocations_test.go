package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/internal/server"
)

// TestAllocationsPerCall guards what a call costs the collector on a whole
// server with its metrics, from the socket and back to it. Two allocations are
// the generator's: a frame of headers and one of trailers. Of grpc-go's listener
// five are ours, the rest grpc-go's own.
func TestAllocationsPerCall(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools")
	}
	bounds := map[string]float64{"tollgate": 62, "fast": 2.1}
	for mix := range limitsOf {
		targets := startInProcess(t, mix)
		for listener, bound := range bounds {
			for api, call := range calls {
				t.Run(fmt.Sprintf("%s, %s, %s", listener, api, mix), func(t *testing.T) {
					if got := allocationsPerCall(t, targets[listener], call, mix); got > bound {
						t.Errorf("a call took %.2f allocations, want at most %v", got, bound)
					} else {
						t.Logf("%.2f allocations", got)
					}
				})
			}
		}
	}
}

// startInProcess runs a Tollgate in this process and returns its listeners.
func startInProcess(t *testing.T, mix string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	if err := fill(filepath.Join(dir, "tollgate.db"), keys); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "tollgate.yaml")
	for path, text := range map[string]string{
		config:                           fmt.Sprintf(configuration, "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", keys+1, planName, limitsOf[mix].consumer, "none", "warn"),
		filepath.Join(dir, "rules.yaml"): fmt.Sprintf(ruleFile, limitsOf[mix].rule),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := server.Start(t.Context(), server.Options{ConfigPath: config, DataDir: dir, Log: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return map[string]string{"tollgate": s.GRPCAddr(), "fast": s.FastAddr()}
}

const keys = 100

// allocationsPerCall makes calls one after another.
func allocationsPerCall(t *testing.T, target string, c call, mix string) float64 {
	t.Helper()
	source, err := c.make(keys, 1)
	if err != nil {
		t.Fatal(err)
	}
	connection, err := dial(target, c.headers, source.next())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.close()
	want := admitted
	one := func(check bool) {
		if err := connection.send(source.next(), time.Time{}); err != nil {
			t.Fatal(err)
		}
		if err := connection.flush(); err != nil {
			t.Fatal(err)
		}
		r, err := connection.next()
		if err != nil {
			t.Fatal(err)
		}
		if got := source.judge(r); check && got != want {
			t.Fatalf("answer = %v, want %v", got, want)
		}
	}
	if err := connection.flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := connection.next(); err != nil {
		t.Fatal(err)
	}
	for range 3 * keys {
		one(false)
	}
	if mix == "refused" {
		want = refused
	}
	// The least of several counts, since the server does other things too.
	const calls = 500
	least := math.Inf(1)
	for range 8 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range calls {
			one(true)
		}
		runtime.ReadMemStats(&after)
		least = min(least, float64(after.Mallocs-before.Mallocs)/calls)
	}
	return least
}
