package mysql_test

import (
	"strings"
	"testing"

	"github.com/tollgate-dev/tollgate/descriptors/consumers/mysql"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/sqlstore"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/sqltest"
)

func TestMariaDB(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a database")
	}
	sqltest.RunAll(t, sqltest.Database{
		Server: sqltest.MariaDB(t), Connect: mysql.Open, Newest: 1,
		Hash: func(token string) string { return "UNHEX(SHA2('" + token + "', 256))" },
		Loosen: `ALTER TABLE tollgate_tokens MODIFY sha256 VARBINARY(32) NOT NULL, DROP KEY sha256;
			ALTER TABLE tollgate_consumers MODIFY labels MEDIUMTEXT NOT NULL DEFAULT ('{}'); SET FOREIGN_KEY_CHECKS = 0;
			ALTER TABLE tollgate_consumers MODIFY id VARCHAR(128) NOT NULL`,
	})
}

func TestDSN(t *testing.T) {
	for dsn, want := range map[string]string{
		"u:p@tcp(h:3307)/d":              "h:3307",
		"u:p@unix(/run/db.sock)/d":       "/run/db.sock",
		"mysql://u:p%40x@h/d?tls=false":  "h:3306",
		"mariadb://u:p@h.example:3307/d": "h.example:3307",
	} {
		c, err := mysql.Parse(dsn)
		if err != nil || c.Addr != want || c.DBName != "d" || c.User != "u" || !strings.HasPrefix(c.Passwd, "p") {
			t.Errorf("Parse(%q) = %v, %v, want the address %s", dsn, c, err, want)
		}
	}
	for _, dsn := range []string{"", "hunter2", "u:hunter2@h", "u:hunter2@tcp(h:1)", "mysql://u:hunter2%@h/d", "u:hunter2@tcp(h:1)/d?tls=hunter2", "postgres://u:hunter2@h/d"} {
		err := mysql.CheckDSN(dsn)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("CheckDSN(%q) = %v, want an error without the DSN", dsn, err)
		}
		if _, err := mysql.Open(dsn, sqlstore.Options{}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Open(%q) = %v, want an error without the DSN", dsn, err)
		}
	}
}
