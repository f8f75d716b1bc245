package apollo_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/apollo"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/sqlstore"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/sqltest"
	"github.com/tollgate-dev/tollgate/limits"
)

const (
	one   = "4dd7af2cd6e0a4ddc3f9d5e0d4b8fcdf3f2a2ee3a1c1b8c2d9e0f1a2b3c4d5e6" // 64 digits
	two   = "0a4d55a8d778e5022fab701977c5d840bbc486d0"                         // 40, as of old
	three = "ffffffffffffffffffffffffffffffffffffffff"
	user  = "apollo_pat_abc_secret"
)

// gate is a portal's database and who follows it as a user that only reads.
type gate struct {
	server   *sqltest.Server
	database string
	store    *apollo.Store
	registry *consumers.Registry
	log      *strings.Builder
}

func open(t *testing.T, server *sqltest.Server, fullPass time.Duration, statements ...string) *gate {
	t.Helper()
	g := &gate{server: server, database: server.Database(t), registry: consumers.NewRegistry(consumers.RegistryOptions{}), log: new(strings.Builder)}
	schema, err := os.ReadFile("../../../examples/apollo/portal.sql")
	if err != nil {
		t.Fatal(err)
	}
	g.sql(t, string(schema))
	g.sql(t, "CREATE USER reader_"+g.database+"@localhost IDENTIFIED BY 'hunter2'; GRANT SELECT ON "+g.database+".* TO reader_"+g.database+"@localhost")
	for _, s := range statements {
		g.sql(t, s)
	}
	dsn := strings.Replace(server.DSN(g.database), "tollgate:s3cret-of-mysql", "reader_"+g.database+":hunter2", 1)
	g.store, err = apollo.Open(dsn, apollo.Options{
		Options: sqlstore.Options{
			Registry: g.registry, Clock: limits.NewClock(), Log: slog.New(slog.NewTextHandler(g.log, nil)), Poll: 50 * time.Millisecond, FullPass: fullPass,
		},
		Sessions: consumers.Limits{{Limit: limits.Limit{Kind: limits.Rate, N: 77, Period: time.Second}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.store.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return g
}

func (g *gate) sql(t *testing.T, statements string) {
	t.Helper()
	g.server.Exec(t, g.database, statements)
}

// who is the consumer of a token and its limit: -1 unlimited, 0 nobody's.
func (g *gate) who(token string) (string, int64) {
	grant, standing := g.registry.Resolve(limits.At(time.Now()), token)
	switch {
	case standing != consumers.Valid:
		return "", 0
	case grant.Len() == 0:
		return grant.Consumer.ID, -1
	}
	return grant.Consumer.ID, grant.Limiter(0).Spec().Limit().N
}

func (g *gate) eventually(t *testing.T, token, id string, limit int64) {
	t.Helper()
	sqltest.Eventually(t, "the token of "+id+" has its limit", func() bool {
		gotID, got := g.who(token)
		return gotID == id && got == limit
	})
}

const seed = `INSERT INTO Consumer (Id, AppId, OrgId, OwnerName) VALUES (1, 'orders', 'shop', 'ann'), (2, 'search', 'shop', 'bob');
	INSERT INTO ConsumerToken (Id, ConsumerId, Token, RateLimit) VALUES (1, 1, '` + one + `', 5), (2, 2, '` + two + `', 0);
	INSERT INTO UserToken (Id, UserId, TokenPrefix, TokenHash, RateLimit, Expires) VALUES (1, 'carol', 'abc', SHA2('` + user + `', 256), 9, '2099-01-01');`

func TestPortal(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a database")
	}
	server := sqltest.MariaDB(t)
	t.Run("tables", func(t *testing.T) { tables(t, server) })
	t.Run("changes", func(t *testing.T) { changes(t, server) })
	t.Run("hard deletion", func(t *testing.T) { hardDeletion(t, server) })
	t.Run("settings", func(t *testing.T) { settings(t, server) })
	t.Run("before 2.4", func(t *testing.T) { before24(t, server) })
	t.Run("another database", func(t *testing.T) { another(t, server) })
}

func tables(t *testing.T, server *sqltest.Server) {
	g := open(t, server, time.Hour, seed, "INSERT INTO ConsumerToken (ConsumerId, Token, RateLimit) VALUES (1, '"+strings.ToUpper(three)+"', 8)")
	if err := g.store.Started(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		token, id string
		limit     int64
	}{{one, "orders", 5}, {two, "search", -1}, {three, "orders@3", 8}, {user, "@user.1", 9}} {
		if id, limit := g.who(c.token); id != c.id || limit != c.limit {
			t.Errorf("the token of %s is %s with %d, want %d", c.id, id, limit, c.limit)
		}
	}
	if grant, _ := g.registry.Consumer(limits.At(time.Now()), apollo.Sessions); grant.Nobody() || grant.Limiter(0).Spec().Limit().N != 77 {
		t.Error("there is no consumer for sessions with its limit")
	}
	c, err := g.store.Consumer(t.Context(), "orders")
	if err != nil || c.Labels["app"] != "orders" || c.Labels["org"] != "shop" || c.Labels["owner"] != "ann" {
		t.Errorf("Consumer(orders) = %+v, %v", c, err)
	}
	if _, err := g.store.Put(t.Context(), c, consumers.Always); !errors.Is(err, consumers.ErrReadOnly) {
		t.Errorf("Put = %v, want ErrReadOnly", err)
	}
	if err := g.store.PutSettings(t.Context(), nil); !errors.Is(err, consumers.ErrReadOnly) {
		t.Errorf("PutSettings = %v, want ErrReadOnly", err)
	}
}

// changes are found without comparing everything.
func changes(t *testing.T, server *sqltest.Server) {
	g := open(t, server, time.Hour, seed)
	g.eventually(t, one, "orders", 5)
	g.sql(t, "UPDATE ConsumerToken SET RateLimit = 1000 WHERE Id = 1")
	g.eventually(t, one, "orders", 1000)
	g.sql(t, "UPDATE ConsumerToken SET Expires = NOW() - INTERVAL 1 HOUR WHERE Id = 1")
	g.eventually(t, one, "", 0)
	g.sql(t, "UPDATE ConsumerToken SET Expires = NOW() + INTERVAL 1 HOUR WHERE Id = 1")
	g.eventually(t, one, "orders", 1000)
	g.sql(t, "INSERT INTO ConsumerToken (Id, ConsumerId, Token, RateLimit) VALUES (7, 1, '"+three+"', 3)")
	g.eventually(t, three, "orders@7", 3)
	g.sql(t, "UPDATE ConsumerToken SET IsDeleted = 1, DeletedAt = 1 WHERE Id = 1")
	g.eventually(t, one, "", 0)
	g.eventually(t, three, "orders", 3) // which is the first now
	g.sql(t, "UPDATE Consumer SET IsDeleted = 1, DeletedAt = 1 WHERE Id = 1")
	g.eventually(t, three, "", 0)
	g.sql(t, "UPDATE UserToken SET RevokedAt = NOW() WHERE Id = 1")
	g.eventually(t, user, "", 0)
	g.sql(t, "INSERT INTO Consumer (Id, AppId) VALUES (9, 'new/app')") // no id of Tollgate's
	sqltest.Eventually(t, "what cannot be meant is counted", func() bool { return g.store.Status().Bad == 1 })
	g.eventually(t, two, "search", -1)
	if err := g.store.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, _ := g.registry.Len(); n != 2 { // search and the sessions
		t.Errorf("%d consumers are known at the end, want 2", n)
	}
}

func hardDeletion(t *testing.T, server *sqltest.Server) {
	g := open(t, server, time.Hour, seed)
	g.eventually(t, one, "orders", 5)
	g.sql(t, "DELETE FROM ConsumerToken WHERE Id = 1; DELETE FROM Consumer WHERE Id = 1")
	g.eventually(t, one, "", 0)
}

func settings(t *testing.T, server *sqltest.Server) {
	g := open(t, server, time.Hour, seed)
	if err := g.store.Started(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := g.store.Settings().Value("mode", "enforce"); ok {
		t.Error("a portal without keys of its own changes the mode")
	}
	for _, c := range []struct{ key, value, name, want string }{
		{"enabled", "true", "mode", "enforce"}, {"enabled", "shadow", "mode", "shadow"}, {"enabled", "FALSE", "mode", "off"},
		{"count", "30", "default_limit", "30/s"}, {"count", "0", "default_limit", "none"}, {"count", "many", "default_limit", "many"},
	} {
		g.sql(t, "REPLACE INTO ServerConfig (`Key`, `Value`) VALUES ('open.api.limit."+c.key+"', '"+c.value+"')")
		sqltest.Eventually(t, c.key+" is "+c.want, func() bool {
			got, ok := g.store.Settings().Value(c.name, "whatever the file says")
			return ok && got == c.want
		})
	}
	g.sql(t, "UPDATE ServerConfig SET IsDeleted = 1, DeletedAt = Id")
	sqltest.Eventually(t, "the file counts again", func() bool { return len(g.store.Settings()) == 0 })
}

// before24 has neither RateLimit nor users' tokens: the default limit counts.
func before24(t *testing.T, server *sqltest.Server) {
	g := open(t, server, time.Hour, seed, "ALTER TABLE ConsumerToken DROP COLUMN RateLimit; DROP TABLE UserToken")
	if err := g.store.Started(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.registry.SetOptions(limits.At(time.Now()), consumers.RegistryOptions{Default: consumers.Limits{{Limit: limits.Limit{Kind: limits.Rate, N: 42, Period: time.Second}}}})
	if id, limit := g.who(one); id != "orders" || limit != 42 {
		t.Errorf("the token is %s's with %d, want the default limit", id, limit)
	}
}

func another(t *testing.T, server *sqltest.Server) {
	g := open(t, server, time.Hour, "DROP TABLE ConsumerToken")
	err := g.store.Started(t.Context())
	if !errors.Is(err, sqlstore.ErrUnusable) || !strings.Contains(err.Error(), "name the portal's database") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the start at a database that is none of a portal = %v", err)
	}
}
