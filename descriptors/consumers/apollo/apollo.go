package apollo

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/mysql"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/sqlstore"
)

// Sessions is the consumer of requests without a token: those of the portal's
// own pages, which come with a session. No AppId has an @.
const Sessions = "@portal"

// fullPass is how often everything is compared, unless said otherwise.
const fullPass = 30 * time.Second

// Options of a portal's database.
type Options struct {
	sqlstore.Options
	Sessions consumers.Limits // of [Sessions], all together; nil: the default limit
}

// Store is the consumers of a portal, read-only. Make one with [Open], then let
// it Run.
type Store struct {
	*consumers.ReadOnly
	follower *sqlstore.Follower
	db       *sql.DB
}

var _ consumers.Store = (*Store)(nil)

// Open returns the store of the database that a DSN names, in a form that
// package mysql reads. Nothing is asked of the database before the store runs.
func Open(dsn string, o Options) (*Store, error) {
	c, err := mysql.Parse(dsn)
	if err != nil {
		return nil, err
	}
	connector, err := driver.NewConnector(c)
	if err != nil {
		return nil, mysql.ErrDSN
	}
	if o.FullPass == 0 {
		o.FullPass = fullPass
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(2)
	p := &portal{db: db, sessions: o.Sessions, redact: sqlstore.Redactor(dsn, c.Passwd)}
	f := sqlstore.NewFollower(p, o.Options)
	return &Store{ReadOnly: consumers.NewReadOnly(o.Registry, f.Refresh), follower: f, db: db}, nil
}

// Run keeps the registry like the portal until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	s.follower.Run(ctx)
	return s.db.Close()
}

// Started returns once the consumers are in force, or the first attempt to get
// them failed; its error says why.
func (s *Store) Started(ctx context.Context) error { return s.follower.Started(ctx) }

// Status returns how the database is doing.
func (s *Store) Status() sqlstore.Status { return s.follower.Status() }

// Settings returns what the portal's ServerConfig says.
func (s *Store) Settings() sqlstore.Settings { return s.follower.Settings() }

// PutSettings returns consumers.ErrReadOnly.
func (s *Store) PutSettings(context.Context, sqlstore.Settings) error {
	return fmt.Errorf("settings: %w: the portal's ServerConfig has open.api.limit.enabled and open.api.limit.count", consumers.ErrReadOnly)
}
