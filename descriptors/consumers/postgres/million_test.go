package postgres_test

import (
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers/postgres"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/sqlstore"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/sqltest"
)

// TestMillion loads a million consumers with a token each, then sees one change
// and compares everything. It is run by hand: TOLLGATE_TEST_MILLION=1.
func TestMillion(t *testing.T) {
	if os.Getenv("TOLLGATE_TEST_MILLION") == "" {
		t.Skip("takes a minute: set TOLLGATE_TEST_MILLION=1")
	}
	server := sqltest.Postgres(t)
	database := server.Database(t)
	sqltest.Run(t, postgres.Open, server.DSN(database), sqlstore.Options{}).Loaded(t)
	server.Exec(t, database, `SET session_replication_role = replica;
		INSERT INTO tollgate_consumers (id, limits, labels) SELECT 'consumer-' || i, (i % 1000 + 1) || '/s', '{"team": "t"}' FROM generate_series(1, 1000000) i;
		INSERT INTO tollgate_tokens (consumer, id, sha256) SELECT 'consumer-' || i, 'prod', sha256(convert_to('secret-' || i, 'UTF8')) FROM generate_series(1, 1000000) i;
		ANALYZE`)
	t.Log("a million rows are there")
	var m runtime.MemStats
	start := time.Now()
	r := sqltest.Run(t, postgres.Open, server.DSN(database), sqlstore.Options{Poll: time.Hour, FullPass: time.Hour})
	peak := uint64(0)
	for r.Store.Status().Synced.IsZero() {
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapInuse)
		time.Sleep(20 * time.Millisecond)
	}
	took := time.Since(start)
	runtime.GC()
	runtime.ReadMemStats(&m)
	n, _ := r.Registry.Len()
	t.Logf("%d consumers loaded in %s, heap in use at most %d MB, then %d MB", n, took, peak>>20, m.HeapInuse>>20)
	start = time.Now()
	server.Exec(t, database, "UPDATE tollgate_consumers SET limits = '7/s' WHERE id = 'consumer-500000'")
	sqltest.Eventually(t, "the change is in force", func() bool {
		c, _ := r.Registry.Lookup("consumer-500000")
		return len(c.Limits) == 1 && c.Limits[0].N == 7
	})
	t.Logf("a change in force after %s, the client's start included", time.Since(start))
	start = time.Now()
	if err := r.Store.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&m)
	t.Logf("everything compared in %s, heap in use %d MB", time.Since(start), m.HeapInuse>>20)
	if n != 1_000_000 {
		t.Errorf("%d consumers are known", n)
	}
}
