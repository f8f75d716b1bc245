package server

import (
	"context"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
)

// What the collector may let lie before it runs, beside what is live: garbage
// is cheap while little is live and dear once a million consumers are, of which
// the collector has little to look at.
const (
	slack      = 40 << 20 // bytes
	minPercent = 20       // of the live heap
	large      = 256 << 20
	bigPercent = 50 // of one that is larger: a million consumers and as many counters
	maxPercent = 1000
)

// limitShare is the part of a container's memory that the heap is kept to.
const limitShare = 0.9

// tuner sets GOGC and GOMEMLIMIT where the user has set neither.
type tuner struct {
	sample  []metrics.Sample
	percent int // in force
}

// tuneMemory tunes now and after every collection until ctx ends. Later would be
// too late: what lives can grow tenfold in a burst, and with it, times GOGC, what lies.
func tuneMemory(ctx context.Context) {
	if os.Getenv("GOMEMLIMIT") == "" {
		if limit, ok := containerMemory(); ok {
			debug.SetMemoryLimit(int64(float64(limit) * limitShare))
		}
	}
	if os.Getenv("GOGC") == "" {
		t := &tuner{sample: []metrics.Sample{{Name: "/gc/heap/live:bytes"}}}
		t.tune(ctx)
	}
}

// tune stops the world for a moment where there is something to set.
func (t *tuner) tune(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	metrics.Read(t.sample)
	if p := percent(t.sample[0].Value.Uint64()); p < t.percent || p > t.percent+t.percent/8 {
		t.percent = p
		debug.SetGCPercent(p)
	}
	// What nobody refers to is cleaned up after the next collection.
	runtime.AddCleanup(&struct{ *tuner }{}, t.tune, ctx)
}

// percent returns GOGC for a live heap.
func percent(live uint64) int {
	if live > large {
		return bigPercent
	}
	return int(min(max(slack*100/max(live, 1), minPercent), maxPercent))
}

// containerMemory returns the memory limit of the control group, if there is one.
func containerMemory() (int64, bool) {
	text, err := os.ReadFile("/sys/fs/cgroup/memory.max")
	if err != nil {
		return 0, false
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return limit, err == nil && limit > 0 && limit < math.MaxInt64 // "max" is no number
}
