package sqltest

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// Postgres starts a PostgreSQL.
func Postgres(t testing.TB) *Server {
	t.Helper()
	const debian, bin = "postgresql", "/usr/lib/postgresql/*/bin"
	initdb, server, psql := program(t, debian, "initdb", bin), program(t, debian, "postgres", bin), program(t, debian, "psql", bin)
	credential := unprivileged(t)
	s := &Server{dir: folder(t, credential)}
	data := filepath.Join(s.dir, "data")
	run(t, command(credential, s.dir, initdb, "--no-sync", "--username=tollgate", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "-D", data))
	s.command = func() *exec.Cmd {
		return command(credential, s.dir, server, "-D", data, "-k", s.dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=60")
	}
	sql := func(database, query string) error {
		return exec.Command(psql, "-X", "-q", "-h", s.dir, "-U", "tollgate", "-d", database, "-c", query).Run()
	}
	s.client = func(database, statements string) *exec.Cmd {
		args := []string{"-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", s.dir, "-U", "tollgate", "-d", database}
		if statements != "" {
			args = append(args, "-c", statements)
		}
		return exec.Command(psql, args...)
	}
	s.ready = func() error { return sql("postgres", "SELECT 1") }
	s.create = func(database string) error { return sql("postgres", "CREATE DATABASE "+database) }
	s.dsn = func(database string) string {
		return "host=" + s.dir + " user=tollgate password=s3cret-of-postgres dbname=" + database
	}
	s.Start(t)
	t.Cleanup(func() { s.stop(t) })
	return s
}
