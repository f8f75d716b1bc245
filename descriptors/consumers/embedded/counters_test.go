package embedded_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers/embedded"
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

// Counters that are too many to be written at once are written one flush after
// the other, and all of them at the end.
func TestManyCountersAreWrittenInTurn(t *testing.T) {
	const keys = 12_000
	path := filepath.Join(t.TempDir(), "tollgate.db")
	spec, err := limits.Compile(limits.Limit{Kind: limits.FixedWindow, N: 1, Period: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	key := func(i int) string { return fmt.Sprint("user=", i) }
	run := func(f func(db *embedded.DB, table *limits.Table)) {
		db := open(t, path)
		table := limits.NewTable(limits.TableOptions{})
		if err := db.RememberTable(table); err != nil {
			t.Fatal(err)
		}
		f(db, table)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	run(func(db *embedded.DB, table *limits.Table) {
		begin := time.Now()
		for i := range keys {
			now := limits.At(time.Now())
			table.LimiterString(now, key(i), spec).Take(now, 1)
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
		quick := time.Since(begin) < 500*time.Millisecond // before a flush came by itself, and after it another
		if n := db.Counters(t); n == 0 || quick && n == keys {
			t.Errorf("a flush wrote %d of %d counters, want a part", n, keys)
		}
	})
	run(func(_ *embedded.DB, table *limits.Table) {
		had := 0
		for i := range keys {
			now := limits.At(time.Now())
			if table.LimiterString(now, key(i), spec).Take(now, 1).Allowed {
				had++
			}
		}
		if had > 0 {
			t.Errorf("%d of %d counters were had again after the restart", had, keys)
		}
	})
}
