package mysql_test

import (
	"testing"

	"github.com/tollgate-dev/tollgate/descriptors/consumers/consumerstest"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/mysql"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/sqltest"
)

func TestStore(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a database")
	}
	server := sqltest.MariaDB(t)
	consumerstest.RunStore(t, func(t *testing.T) consumerstest.Source {
		return &sqltest.Source{DSN: server.DSN(server.Database(t)), Connect: mysql.Open}
	})
}
