package server

import (
	"math"
	"os"
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
	tunes  bool
	sample []metrics.Sample
}

func newTuner() *tuner {
	t := &tuner{tunes: os.Getenv("GOGC") == "", sample: []metrics.Sample{{Name: "/gc/heap/live:bytes"}}}
	if os.Getenv("GOMEMLIMIT") == "" {
		if limit, ok := containerMemory(); ok {
			debug.SetMemoryLimit(int64(float64(limit) * limitShare))
		}
	}
	t.tune()
	return t
}

func (t *tuner) tune() {
	if !t.tunes {
		return
	}
	metrics.Read(t.sample)
	debug.SetGCPercent(percent(t.sample[0].Value.Uint64()))
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
