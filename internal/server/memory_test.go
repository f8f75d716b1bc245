package server_test

import (
	"os"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

// TestGarbageFollowsWhatLives holds a lot and lets it go again: what may lie
// beside it must follow with the next collection.
func TestGarbageFollowsWhatLives(t *testing.T) {
	if os.Getenv("GOGC") != "" {
		t.Skip("GOGC is set: it counts")
	}
	start(t, "listen: {grpc: '127.0.0.1:0', http: '127.0.0.1:0', drain: 0s}\n")
	held := make([]byte, 256<<20)
	clear(held)
	waitForGOGC(t, "much lives", func(percent uint64) bool { return percent <= 50 })
	runtime.KeepAlive(held)
	held = nil
	waitForGOGC(t, "little lives", func(percent uint64) bool { return percent > 100 })
}

func waitForGOGC(t *testing.T, when string, enough func(uint64) bool) {
	t.Helper()
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	for deadline := time.Now().Add(time.Minute); ; {
		runtime.GC()
		metrics.Read(sample)
		if enough(sample[0].Value.Uint64()) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("GOGC is %d while %s", sample[0].Value.Uint64(), when)
		}
	}
}
