package mysql

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"io/fs"
	"log"
	"net/url"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/tollgate-dev/tollgate/descriptors/consumers/sqlstore"
)

//go:embed schema/*.sql
var files embed.FS

// ErrDSN says that a DSN cannot be read. Nothing of the DSN is in its text.
var ErrDSN = errors.New("dsn: want USER:PASSWORD@tcp(HOST:PORT)/DATABASE, USER:PASSWORD@unix(/SOCKET)/DATABASE or mysql://USER:PASSWORD@HOST:PORT/DATABASE")

// CheckDSN reports whether a DSN can be read.
func CheckDSN(dsn string) error {
	_, err := Parse(dsn)
	return err
}

// connectTimeout bounds the attempt to connect where the DSN does not.
const connectTimeout = 5 * time.Second

// Parse reads a DSN of either form.
func Parse(dsn string) (*mysql.Config, error) {
	c, err := parse(dsn)
	if err != nil || c.DBName == "" {
		return nil, ErrDSN
	}
	if c.Timeout == 0 {
		c.Timeout = connectTimeout
	}
	c.Loc, c.ParseTime, c.InterpolateParams = time.UTC, false, true
	c.Logger = log.New(discard{}, "", 0) // what it would print comes as an error too
	return c, nil
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func parse(dsn string) (*mysql.Config, error) {
	_, rest, isURL := strings.Cut(dsn, "://")
	if scheme := strings.TrimSuffix(dsn, "://"+rest); !isURL || scheme != "mysql" && scheme != "mariadb" {
		return mysql.ParseDSN(dsn)
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return nil, err
	}
	address := u.Host
	if u.Port() == "" {
		address += ":3306"
	}
	c, err := mysql.ParseDSN("tcp(" + address + ")" + u.EscapedPath() + "?" + u.RawQuery)
	if err != nil {
		return nil, err
	}
	c.User = u.User.Username()
	c.Passwd, _ = u.User.Password()
	return c, nil
}

// Open returns the store of the database that a DSN names. Nothing is asked of
// the database before the store runs.
func Open(dsn string, o sqlstore.Options) (*sqlstore.Store, error) {
	c, err := Parse(dsn)
	if err != nil {
		return nil, err
	}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, ErrDSN
	}
	schema, err := fs.Sub(files, "schema")
	if err != nil {
		return nil, err
	}
	return sqlstore.New(sql.OpenDB(connector), sqlstore.Dialect{
		Name:      "mysql",
		Schema:    schema,
		Parameter: func(int) string { return "?" },
		Micros: func(column string) string {
			// A date of zeros, which some servers let in, is long past and not NULL.
			return "IF(" + column + " IS NULL, NULL, COALESCE(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', " + column + "), 0))"
		},
		Locked:   locked,
		HasTable: "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?",
		Prune: `DELETE FROM tollgate_changes WHERE at < NOW(6) - INTERVAL 1 HOUR
			AND seq < (SELECT newest FROM (SELECT MAX(seq) AS newest FROM tollgate_changes) AS c) ORDER BY at LIMIT 50000`,
		Explain: explain,
		Redact:  sqlstore.Redactor(dsn, c.Passwd),
	}, o), nil
}

// lockSeconds is how long to wait while another instance makes the schema.
const lockSeconds = 4

func locked(ctx context.Context, db *sql.DB, f func(context.Context, sqlstore.Execer) error) (err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() // gives it back; nothing to lose
	var got sql.NullInt64
	if err := conn.QueryRowContext(ctx, "SELECT GET_LOCK(CONCAT('tollgate.', DATABASE()), ?)", lockSeconds).Scan(&got); err != nil {
		return err
	}
	if got.Int64 != 1 {
		return errors.New("another instance is making the schema")
	}
	defer func() {
		_, release := conn.ExecContext(context.WithoutCancel(ctx), "DO RELEASE_LOCK(CONCAT('tollgate.', DATABASE()))")
		err = errors.Join(err, release)
	}()
	return f(ctx, conn)
}

// explain tells errors apart by their number.
func explain(err error) sqlstore.Fault {
	var e *mysql.MySQLError
	if !errors.As(err, &e) {
		return sqlstore.OtherFault
	}
	switch e.Number {
	case 1020, 1205, 1213: // changed since it was read, lock wait timeout, deadlock
		return sqlstore.TryAgain
	case 1062:
		return sqlstore.Duplicate
	case 1044, 1142, 1227, 1290, 1370, 1419, 1836: // no privilege, a read-only server
		return sqlstore.Denied
	}
	return sqlstore.OtherFault
}
