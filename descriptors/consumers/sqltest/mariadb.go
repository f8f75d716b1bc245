package sqltest

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// MariaDB starts a MariaDB.
func MariaDB(t testing.TB) *Server {
	t.Helper()
	const debian = "mariadb-server"
	install, server, client := program(t, debian, "mariadb-install-db"), program(t, debian, "mariadbd", "/usr/sbin"), program(t, debian, "mariadb")
	credential := unprivileged(t)
	s := &Server{dir: folder(t, credential)}
	data, socket := filepath.Join(s.dir, "data"), filepath.Join(s.dir, "db.sock")
	run(t, command(credential, s.dir, install, "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--datadir="+data))
	s.command = func() *exec.Cmd {
		return command(credential, s.dir, server, "--no-defaults", "--datadir="+data, "--socket="+socket, "--skip-networking",
			"--pid-file="+filepath.Join(s.dir, "pid"), "--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=256M", "--max-connections=60")
	}
	sql := func(query string) error {
		return exec.Command(client, "--no-defaults", "--socket="+socket, "--user=root", "-e", query).Run()
	}
	s.client = func(database, statements string) *exec.Cmd {
		args := []string{"--no-defaults", "--socket=" + socket, "--user=root", "--unbuffered", database}
		if statements != "" {
			args = append(args, "-e", statements)
		}
		return exec.Command(client, args...)
	}
	s.ready = func() error { return sql("SELECT 1") }
	s.create = func(database string) error {
		return sql("CREATE DATABASE " + database + "; CREATE USER IF NOT EXISTS tollgate@localhost IDENTIFIED BY 's3cret-of-mysql'; GRANT ALL ON " + database + ".* TO tollgate@localhost;")
	}
	s.dsn = func(database string) string {
		return "tollgate:s3cret-of-mysql@unix(" + socket + ")/" + database
	}
	s.Start(t)
	t.Cleanup(func() { s.stop(t) })
	return s
}
