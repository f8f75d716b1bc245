package postgres_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/postgres"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/sqlstore"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/sqltest"
)

func TestPostgres(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a database")
	}
	server := sqltest.Postgres(t)
	sqltest.RunAll(t, sqltest.Database{
		Server: server, Connect: postgres.Open, Newest: 1,
		Hash: func(token string) string { return "sha256('" + token + "')" },
		Loosen: `ALTER TABLE tollgate_tokens DROP CONSTRAINT tollgate_tokens_sha256_key, DROP CONSTRAINT tollgate_tokens_sha256_check;
			ALTER TABLE tollgate_consumers DROP CONSTRAINT tollgate_consumers_id_check`,
	})
	t.Run("notify", func(t *testing.T) { notify(t, server) })
	t.Run("truncate", func(t *testing.T) { truncate(t, server) })
}

// notify sees changes although nothing is polled for in the test's life.
func notify(t *testing.T, server *sqltest.Server) {
	database := server.Database(t)
	r := sqltest.Run(t, postgres.Open, server.DSN(database), sqlstore.Options{Poll: time.Hour, FullPass: time.Hour})
	r.Loaded(t)
	server.Exec(t, database, "INSERT INTO tollgate_consumers (id) VALUES ('first')")
	sqltest.Eventually(t, "the first change is in force", func() bool { _, ok := r.Registry.Lookup("first"); return ok })
	var worst, sum time.Duration
	const n = 20
	for i := range n {
		id := "c" + string(rune('a'+i))
		server.Exec(t, database, "INSERT INTO tollgate_consumers (id) VALUES ('"+id+"')")
		took := sqltest.Eventually(t, "a change is in force", func() bool { _, ok := r.Registry.Lookup(id); return ok })
		worst, sum = max(worst, took), sum+took
	}
	t.Logf("from the end of the client that made the change until it was in force: %s on average, at most %s", sum/n, worst)
}

func truncate(t *testing.T, server *sqltest.Server) {
	database := server.Database(t)
	r := sqltest.Run(t, postgres.Open, server.DSN(database), sqlstore.Options{FullPass: time.Hour})
	r.Loaded(t)
	if _, err := r.Store.Put(t.Context(), consumers.Consumer{ID: "x"}, consumers.Always); err != nil {
		t.Fatal(err)
	}
	server.Exec(t, database, "TRUNCATE tollgate_consumers, tollgate_tokens")
	sqltest.Eventually(t, "nobody is left", func() bool { n, _ := r.Registry.Len(); return n == 0 })
}

func TestDSN(t *testing.T) {
	for _, dsn := range []string{"postgres://u:p@h:5432/d?sslmode=disable", "host=/run/postgresql dbname=d", "postgresql:///d?host=/tmp"} {
		if err := postgres.CheckDSN(dsn); err != nil {
			t.Errorf("CheckDSN(%q) = %v", dsn, err)
		}
	}
	for _, dsn := range []string{"", " ", "hunter2", "postgres://u:hunter2%@h/d", "postgres://u:hunter2/@h:x/d", "host=h port=hunter2", "host=h password='hunter2"} {
		err := postgres.CheckDSN(dsn)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("CheckDSN(%q) = %v, want an error without the DSN", dsn, err)
		}
		if _, err := postgres.Open(dsn, sqlstore.Options{}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Open(%q) = %v, want an error without the DSN", dsn, err)
		}
	}
}
