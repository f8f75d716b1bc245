package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
)

// Dialect is what differs between databases. All of it must be set but Watch.
type Dialect struct {
	Name   string // in messages
	Schema fs.FS  // 001.sql, 002.sql, …: statements between lines of two dashes

	// Parameter writes the parameter of a query by its number, from 1.
	Parameter func(n int) string

	// Micros writes an expression for the microseconds since the Unix epoch at
	// which a time column stands, as a floating-point number: databases know
	// times that Go does not.
	Micros func(column string) string

	// Locked calls f while no other instance is in Locked, and with DDL as one
	// transaction where the database can do that.
	Locked func(ctx context.Context, db *sql.DB, f func(context.Context, Execer) error) error

	// HasTable counts the tables of a name, its parameter, that queries find.
	HasTable string

	// Prune deletes some changes that are older than an hour, but never the last.
	Prune string

	// Explain says what kind of an error came from the database.
	Explain func(error) Fault

	// Watch calls wake when something changed, until ctx ends. Nil: nothing but
	// polling tells.
	Watch func(ctx context.Context, wake func())

	// Redact takes secrets out of what the driver says.
	Redact func(string) string
}

// Execer runs statements: a transaction, or a connection.
type Execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Fault is the kind of an error.
type Fault int

// The kinds of errors that something is done about.
const (
	OtherFault Fault = iota
	TryAgain         // a deadlock or the like: the transaction may succeed the next time
	Duplicate        // of a primary key or something else that is unique
	Denied           // the user may not do that, also for good
)

// query writes ? as the dialect's parameters.
func (d *Dialect) query(q string) string {
	var b strings.Builder
	for n := 1; ; n++ {
		before, after, more := strings.Cut(q, "?")
		b.WriteString(before)
		if !more {
			return b.String()
		}
		b.WriteString(d.Parameter(n))
		q = after
	}
}

// in writes a condition that a column is one of n parameters.
func in(column string, n int) string {
	if n == 0 {
		return "1 = 0"
	}
	return column + " IN (?" + strings.Repeat(", ?", n-1) + ")"
}

// redacted is an error whose text has no secrets.
type redacted struct {
	text string
	errs []error
}

func (e *redacted) Error() string   { return e.text }
func (e *redacted) Unwrap() []error { return e.errs }

// explain wraps an error of the database: what was done, what it said, without
// secrets.
func (d *Dialect) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	e := &redacted{d.Redact(fmt.Sprintf("%s: %s: %v", d.Name, doing, err)), []error{err}}
	if d.Explain(err) == OtherFault && !errors.Is(err, ErrUnusable) {
		e.errs = append(e.errs, consumers.ErrUnavailable)
	}
	return e
}
