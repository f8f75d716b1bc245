package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
)

// Store is the consumers of a database, as [consumers.Store]. Make one with
// [New], then let it Run. What it returns is what the database holds; a change
// is in the database and in force here when its call returns, and in force in
// other instances as soon as they see it.
type Store struct {
	*Follower
	db      *sql.DB
	d       Dialect
	journal journal
	pruned  time.Time
}

var _ consumers.Store = (*Store)(nil)

// maxConns bounds the connections of one instance.
const maxConns = 8

// New returns a store over a database that nothing was asked of yet. It closes
// db at the end of Run.
func New(db *sql.DB, d Dialect, o Options) *Store {
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns / 2)
	db.SetConnMaxIdleTime(time.Minute)
	s := &Store{db: db, d: d}
	s.Follower = NewFollower(follows{s}, o)
	return s
}

// Run keeps the registry like the database until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	var watching sync.WaitGroup
	if s.d.Watch != nil {
		watching.Go(func() { s.d.Watch(ctx, s.Wake) })
	}
	s.Follower.Run(ctx)
	watching.Wait()
	return s.db.Close()
}

// follows is the store as its follower reads it.
type follows struct{ s *Store }

func (f follows) Open(ctx context.Context) error {
	return f.s.migrate(ctx)
}

// pruneEvery is how often old entries of the journal are deleted.
const pruneEvery = time.Minute

func (f follows) Changes(ctx context.Context) (Changes, error) {
	c, err := f.s.journal.read(ctx, f.s)
	if err != nil {
		return c, f.s.d.explain("read changes", err)
	}
	if now := time.Now(); now.Sub(f.s.pruned) > pruneEvery {
		f.s.pruned = now.Add(-rand.N(pruneEvery / 4))
		_, err = f.s.db.ExecContext(ctx, f.s.d.Prune)
	}
	if f.s.d.Explain(err) == Denied {
		err = nil // somebody else does it
	}
	return c, f.s.d.explain("delete old changes", err)
}

func (f follows) Page(ctx context.Context, after string, n int) (rows []Row, next string, err error) {
	return f.s.page(ctx, after, n)
}

// idsEach is how many consumers are asked for at once.
const idsEach = 500

func (f follows) Rows(ctx context.Context, ids []string) (all []Row, err error) {
	for part := range slices.Chunk(ids, idsEach) {
		rows, err := f.s.rows(ctx, f.s.db, part, "")
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
	}
	return all, nil
}

// page reads a range of both tables whose ends are known beforehand: what a
// planner makes of a join with a limit is not to be relied on.
func (s *Store) page(ctx context.Context, after string, n int) (rows []Row, next string, err error) {
	next, err = s.pageEnd(ctx, after, n)
	if err != nil {
		return nil, "", s.d.explain("read consumers", err)
	}
	tokens, where, args := "t.consumer > ?", "c.id > ?", []any{after, after}
	if next != "" {
		tokens, where, args = "t.consumer > ? AND t.consumer <= ?", "c.id > ? AND c.id <= ?", []any{after, next, after, next}
	}
	rows, err = s.collect(ctx, s.db, "SELECT "+s.d.columns()+
		" FROM tollgate_consumers c LEFT JOIN tollgate_tokens t ON t.consumer = c.id AND "+tokens+" WHERE "+where+" ORDER BY c.id, t.id", args...)
	return rows, next, s.d.explain("read consumers", err)
}

// pageEnd returns the id of the last consumer of a page, "" where no page follows.
func (s *Store) pageEnd(ctx context.Context, after string, n int) (string, error) {
	rows, err := s.db.QueryContext(ctx, s.d.query("SELECT id FROM tollgate_consumers WHERE id > ? ORDER BY id LIMIT 2 OFFSET ?"), after, n-1)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return "", err
		}
		ids = append(ids, id)
	}
	if len(ids) < 2 {
		return "", rows.Err()
	}
	return ids[0], rows.Err()
}

// rows reads consumers by their ids. They are filled up with the last one to a
// power of two, so that few different statements are prepared.
func (s *Store) rows(ctx context.Context, tx Execer, ids []string, more string) ([]Row, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	var args []any
	for _, id := range ids {
		args = append(args, id)
	}
	for len(args)&(len(args)-1) != 0 {
		args = append(args, args[len(args)-1])
	}
	rows, err := s.collect(ctx, tx, "SELECT "+s.d.columns()+
		" FROM tollgate_consumers c LEFT JOIN tollgate_tokens t ON t.consumer = c.id WHERE "+in("c.id", len(args))+" ORDER BY c.id, t.id"+more, args...)
	return rows, s.d.explain("read consumers", err)
}

// List is Store.List.
func (s *Store) List(ctx context.Context, after string, n int) (page []consumers.Consumer, next string, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	rows, next, err := s.page(ctx, after, n)
	for i := range rows {
		page = append(page, s.shown(&rows[i]))
	}
	return page, next, err
}

// Consumer is Store.Consumer.
func (s *Store) Consumer(ctx context.Context, id string) (consumers.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	rows, err := s.rows(ctx, s.db, []string{id}, "")
	if err != nil {
		return consumers.Consumer{}, err
	}
	if len(rows) == 0 || rows[0].Consumer.ID != id { // MySQL takes "a " for "a"
		return consumers.Consumer{}, fmt.Errorf("consumer %q: %w", id, consumers.ErrNotFound)
	}
	return s.shown(&rows[0]), nil
}

// shown is a row as it is shown: one that cannot be read shows as what is in
// force, under the version of what stands in the database.
func (s *Store) shown(r *Row) consumers.Consumer {
	c := r.Consumer
	c.Version = version(&c)
	if r.Err != nil {
		if in, ok := s.o.Registry.Lookup(c.ID); ok {
			in.Version = c.Version
			return in
		}
	}
	return c
}

// Put is Store.Put.
func (s *Store) Put(ctx context.Context, c consumers.Consumer, m consumers.Match) (consumers.Consumer, error) {
	return s.change(ctx, c.ID, func(ctx context.Context, tx *sql.Tx, old *consumers.Consumer) error {
		if err := matches(old, c.ID, m); err != nil {
			return err
		}
		put := c
		put.Tokens = nil
		if old != nil {
			put.Tokens = old.Tokens
		}
		if err := s.o.Registry.Check(put); err != nil {
			return err
		}
		plan := sql.NullString{String: c.Plan, Valid: c.Plan != ""}
		limits, err := limitsText(c.Limits)
		if err != nil {
			return err
		}
		labels, err := json.Marshal(c.Labels)
		if err != nil {
			return err
		}
		if c.Labels == nil {
			labels = []byte("{}")
		}
		query := "INSERT INTO tollgate_consumers (plan, limits, labels, disabled, version, id) VALUES (?, ?, ?, ?, ?, ?)"
		if old != nil {
			query = "UPDATE tollgate_consumers SET plan = ?, limits = ?, labels = ?, disabled = ?, version = ? WHERE id = ?"
		}
		return s.exec(ctx, tx, query, plan, limits, string(labels), c.Disabled, rand.Int64(), c.ID)
	})
}

func limitsText(ls consumers.Limits) (sql.NullString, error) {
	if ls == nil {
		return sql.NullString{}, nil
	}
	text, err := ls.MarshalJSON()
	return sql.NullString{String: string(text), Valid: true}, err
}

// Delete is Store.Delete.
func (s *Store) Delete(ctx context.Context, id string, m consumers.Match) error {
	_, err := s.change(ctx, id, func(ctx context.Context, tx *sql.Tx, old *consumers.Consumer) error {
		if old == nil {
			return fmt.Errorf("consumer %q: %w", id, consumers.ErrNotFound)
		}
		if err := matches(old, id, m); err != nil {
			return err
		}
		return s.exec(ctx, tx, "DELETE FROM tollgate_consumers WHERE id = ?", id)
	})
	return err
}

// matches checks the condition of a change. old is nil for nobody.
func matches(old *consumers.Consumer, id string, m consumers.Match) error {
	switch {
	case m == consumers.Always, old == nil && m == consumers.IfAbsent:
		return nil
	case m == consumers.IfAbsent:
		return fmt.Errorf("consumer %q: %w", id, consumers.ErrExists)
	case old == nil || old.Version != uint64(m):
		return fmt.Errorf("consumer %q: %w", id, consumers.ErrConflict)
	}
	return nil
}

// changeTimeout is how long a change may wait for others, and then until it is
// in force.
const changeTimeout = 10 * time.Second

// attempts is how often a transaction that met another is tried.
const attempts = 8

// change runs a transaction that has a consumer for itself: old is what it is
// now, nil for none. It returns once the change is in force.
func (s *Store) change(ctx context.Context, id string, f func(ctx context.Context, tx *sql.Tx, old *consumers.Consumer) error) (c consumers.Consumer, err error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	for range attempts {
		c, err = s.transact(ctx, id, f)
		if fault := s.d.Explain(err); fault != TryAgain && fault != Duplicate {
			break
		}
	}
	if s.d.Explain(err) == Duplicate {
		err = consumers.Problems{{Consumer: id, Message: "has a secret that another consumer has too: each token belongs to one consumer"}}
	}
	if err != nil {
		return consumers.Consumer{}, err
	}
	if err := s.Written(ctx, id); err != nil {
		return c, fmt.Errorf("the change is stored, but not in force here yet: %w", err)
	}
	return c, nil
}

func (s *Store) transact(ctx context.Context, id string, f func(ctx context.Context, tx *sql.Tx, old *consumers.Consumer) error) (c consumers.Consumer, err error) {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return c, s.d.explain("begin a change", err)
	}
	defer func() {
		if rollback := tx.Rollback(); !errors.Is(rollback, sql.ErrTxDone) {
			err = errors.Join(err, s.d.explain("take a change back", rollback))
		}
	}()
	old, err := s.locked(ctx, tx, id)
	if err != nil {
		return c, err
	}
	if err := f(ctx, tx, old); err != nil {
		return c, err
	}
	now, err := s.rows(ctx, tx, []string{id}, "")
	if err != nil {
		return c, err
	}
	if len(now) > 0 {
		c = now[0].Consumer
		c.Version = version(&c)
	}
	return c, s.d.explain("commit a change", tx.Commit())
}

// locked reads a consumer and keeps others from changing it.
func (s *Store) locked(ctx context.Context, tx *sql.Tx, id string) (*consumers.Consumer, error) {
	var found string
	err := tx.QueryRowContext(ctx, s.d.query("SELECT id FROM tollgate_consumers WHERE id = ? FOR UPDATE"), id).Scan(&found)
	if errors.Is(err, sql.ErrNoRows) || err == nil && found != id {
		return nil, nil
	}
	if err != nil {
		return nil, s.d.explain("read a consumer", err)
	}
	rows, err := s.rows(ctx, tx, []string{id}, "")
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	c := rows[0].Consumer
	c.Version = version(&c)
	return &c, nil
}

func (s *Store) exec(ctx context.Context, tx *sql.Tx, query string, args ...any) error {
	_, err := tx.ExecContext(ctx, s.d.query(query), args...)
	return s.d.explain("write a change", err)
}
