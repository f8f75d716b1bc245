package embedded_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
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

// TestCounterLogIsBegunAnew: however often counters change, the file does not
// grow, and the last of what each came to counts.
func TestCounterLogIsBegunAnew(t *testing.T) {
	const keys, flushes = 6000, 60
	path := filepath.Join(t.TempDir(), "tollgate.db")
	spec, err := limits.Compile(limits.Limit{Kind: limits.FixedWindow, N: 1000, Period: 100_000 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	open := func() (*embedded.DB, *limits.Table) {
		db, table := open(t, path), limits.NewTable(limits.TableOptions{})
		if err := db.RememberTable(table); err != nil {
			t.Fatal(err)
		}
		return db, table
	}
	take := func(table *limits.Table, i int) int64 {
		now := limits.At(time.Now())
		return table.LimiterString(now, fmt.Sprint("user=", i), spec).Take(now, 1).Remaining
	}
	db, table := open()
	for i := range 100 {
		take(table, keys+i) // once, and never again
	}
	for range flushes {
		for i := range keys {
			take(table, i)
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if n := db.Entries(t); n > 150_000 { // of 300,000
		t.Errorf("after %d flushes there are %d entries of %d keys", flushes, n, keys+100)
	}
	for range 2 {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db, table = open()
		if n := db.Entries(t); n != keys+100 {
			t.Errorf("brought together, they are %d entries of %d keys", n, keys+100)
		}
	}
	defer db.Close()
	for i := range keys + 100 {
		want := int64(1000 - flushes - 1)
		if i >= keys {
			want = 1000 - 2
		}
		if got := take(table, i); got != want {
			t.Fatalf("key %d has %d left, want %d", i, got, want)
		}
	}
}

// TestCountersOfBefore reads a file in which each counter has a record.
func TestCountersOfBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tollgate.db")
	spec, err := limits.Compile(limits.Limit{Kind: limits.FixedWindow, N: 10, Period: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	now := limits.At(time.Now())
	l := limits.New(spec, now)
	l.Take(now, 7)
	db := open(t, path)
	db.PutCounter(t, consumers.SavedState{Key: consumers.StateKey(limits.HashKey("user=a")), State: l.State(), Until: now.Add(48 * time.Hour)})
	for range 2 {
		table := limits.NewTable(limits.TableOptions{})
		if err := db.RememberTable(table); err != nil {
			t.Fatal(err)
		}
		if got := table.LimiterString(now, "user=a", spec).Peek(now, 1).Remaining; got != 3 {
			t.Errorf("%d are left, want 3", got)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, path)
	}
	defer db.Close()
}
