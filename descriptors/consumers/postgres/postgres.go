package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"io/fs"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/tollgate-dev/tollgate/descriptors/consumers/sqlstore"
)

//go:embed schema/*.sql
var files embed.FS

// ErrDSN says that a DSN cannot be read. Nothing of the DSN is in its text.
var ErrDSN = errors.New("dsn: want postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…, with special characters of the password percent-encoded, or host=… user=… dbname=…")

// CheckDSN reports whether a DSN can be read.
func CheckDSN(dsn string) error {
	_, err := parse(dsn)
	return err
}

func parse(dsn string) (*pgx.ConnConfig, error) {
	if strings.TrimSpace(dsn) == "" {
		return nil, ErrDSN
	}
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, ErrDSN
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
	if _, ok := c.RuntimeParams["application_name"]; !ok {
		c.RuntimeParams["application_name"] = "tollgate"
	}
	return c, nil
}

const connectTimeout = 5 * time.Second

// Open returns the store of the database that a DSN names, in any form that
// libpq knows. Nothing is asked of the database before the store runs.
func Open(dsn string, o sqlstore.Options) (*sqlstore.Store, error) {
	c, err := parse(dsn)
	if err != nil {
		return nil, err
	}
	schema, err := fs.Sub(files, "schema")
	if err != nil {
		return nil, err
	}
	return sqlstore.New(stdlib.OpenDB(*c), sqlstore.Dialect{
		Name:      "postgres",
		Schema:    schema,
		Parameter: func(n int) string { return "$" + strconv.Itoa(n) },
		Micros:    func(column string) string { return "extract(epoch FROM " + column + ")::float8 * 1e6" },
		Locked:    locked,
		HasTable:  "SELECT count(to_regclass(?))",
		Prune: `DELETE FROM tollgate_changes WHERE seq IN (SELECT seq FROM tollgate_changes
			WHERE at < now() - interval '1 hour' AND seq < (SELECT max(seq) FROM tollgate_changes) ORDER BY at LIMIT 50000)`,
		Explain: explain,
		Watch:   func(ctx context.Context, wake func()) { watch(ctx, c, o, wake) },
		Redact:  sqlstore.Redactor(dsn, c.Password),
	}, o), nil
}

// lockKey is the advisory lock of those who make the schema: "tollgate" in ASCII.
const lockKey = 0x746f6c6c67617465

func locked(ctx context.Context, db *sql.DB, f func(context.Context, sqlstore.Execer) error) (err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", int64(lockKey)); err != nil {
		return err
	}
	if err := f(ctx, tx); err != nil {
		return err
	}
	return tx.Commit()
}

// explain tells errors apart by their SQLSTATE.
func explain(err error) sqlstore.Fault {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return sqlstore.OtherFault
	}
	switch e.Code {
	case "40001", "40P01", "55P03": // serialization failure, deadlock, lock not available
		return sqlstore.TryAgain
	case "23505":
		return sqlstore.Duplicate
	case "42501", "25006": // no privilege, read-only transaction
		return sqlstore.Denied
	}
	return sqlstore.OtherFault
}

const (
	// checkEvery is how often a quiet connection is asked whether it still is one.
	checkEvery = 15 * time.Second

	// Between attempts to listen, shortened at random by up to a half.
	firstPause = 200 * time.Millisecond
	lastPause  = 10 * time.Second
)

// watch listens for notifications. That it cannot is told once; polling goes on.
func watch(ctx context.Context, c *pgx.ConnConfig, o sqlstore.Options, wake func()) {
	pause, told := firstPause, false
	for ctx.Err() == nil {
		err := listen(ctx, c, func() {
			pause, told = firstPause, false
			wake() // what changed before
		}, wake)
		if ctx.Err() != nil {
			return
		}
		if !told {
			told = true
			o.Log.Warn("not listening for notifications of the database, changes are found by polling meanwhile",
				"poll", o.Poll.String(), "err", sqlstore.Redactor(c.ConnString(), c.Password)(err.Error()))
		}
		t := time.NewTimer(pause - rand.N(pause/2))
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
		pause = min(2*pause, lastPause)
	}
}

// listen calls wake for notifications until the connection ends.
func listen(ctx context.Context, c *pgx.ConnConfig, listening, wake func()) error {
	opening, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(opening, c)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(closing) // it is given up either way
	}()
	if _, err := conn.Exec(opening, "LISTEN tollgate_changes"); err != nil {
		return err
	}
	listening()
	for {
		waiting, cancel := context.WithTimeout(ctx, checkEvery)
		_, err := conn.WaitForNotification(waiting)
		cancel()
		switch {
		case err == nil:
			wake()
		case ctx.Err() != nil:
			return ctx.Err()
		case !pgconn.Timeout(err):
			return err
		default:
			if err := ping(ctx, conn); err != nil {
				return err
			}
		}
	}
}

func ping(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return conn.Ping(ctx)
}
