package embedded_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// BenchmarkFlushCounters writes the counters of 10,000 keys that were all used
// since the last round.
func BenchmarkFlushCounters(b *testing.B) {
	db := open(b, filepath.Join(b.TempDir(), "tollgate.db"))
	defer db.Close()
	table := limits.NewTable(limits.TableOptions{})
	if err := db.RememberTable(table); err != nil {
		b.Fatal(err)
	}
	spec, err := limits.Compile(limits.Limit{Kind: limits.FixedWindow, N: 1000, Period: 24 * time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for i := range 10_000 {
			now := limits.At(time.Now())
			table.LimiterString(now, fmt.Sprint("user=", i), spec).Take(now, 1)
		}
		if err := db.Flush(); err != nil {
			b.Fatal(err)
		}
	}
}
