package postgres_test

import (
	"testing"

	"github.com/tollgate-dev/tollgate/descriptors/consumers/consumerstest"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/postgres"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/sqltest"
)

func TestStore(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a database")
	}
	server := sqltest.Postgres(t)
	consumerstest.RunStore(t, func(t *testing.T) consumerstest.Source {
		return &sqltest.Source{DSN: server.DSN(server.Database(t)), Connect: postgres.Open}
	})
}
