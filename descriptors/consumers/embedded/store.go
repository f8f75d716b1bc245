package embedded

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
)

// Store is the consumers of a database, as [consumers.Store]. Make one with
// [DB.Consumers].
type Store struct {
	db       *DB
	registry *consumers.Registry
}

var _ consumers.Store = (*Store)(nil)

// Consumers reads all consumers of the file into the registry and returns the
// store that changes both. Plans are what the file's consumers may name.
func (db *DB) Consumers(r *consumers.Registry, plans map[string]consumers.Plan) (*Store, error) {
	err := guard(db.path, func() error {
		return db.bolt.View(func(tx *bbolt.Tx) error {
			return r.Load(db.options.Clock.Now(), plans, db.all(tx))
		})
	})
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", db.path, err)
	}
	if err := db.release(); err != nil {
		return nil, err
	}
	if n, _ := r.Len(); n > releaseAfter {
		debug.FreeOSMemory() // loading left more garbage than will come again soon
	}
	return &Store{db: db, registry: r}, nil
}

// releaseAfter is after how many consumers the pages that were read are given
// back, so that loading does not need the whole file in memory.
const releaseAfter = 50_000

// readAhead is how many consumers are decoded at once while those before them
// are built: half of the work of loading is one, and half is the other.
const readAhead = 2000

// decoded is one consumer of the file, or why it is none.
type decoded struct {
	consumer consumers.Consumer
	err      error
}

// all yields every consumer, decoded by another goroutine.
func (db *DB) all(tx *bbolt.Tx) iter.Seq2[consumers.Consumer, error] {
	return func(yield func(consumers.Consumer, error) bool) {
		pages, stop := make(chan []decoded, 2), make(chan struct{})
		var reading sync.WaitGroup
		defer reading.Wait()
		defer close(stop)
		send := func(page []decoded) bool {
			select {
			case pages <- page:
				return true
			case <-stop:
				return false
			}
		}
		reading.Go(func() {
			defer close(pages)
			if err := guard(db.path, func() error { return db.read(tx, send) }); err != nil {
				send([]decoded{{err: err}})
			}
		})
		for page := range pages {
			for _, d := range page {
				if !yield(d.consumer, d.err) {
					return
				}
			}
		}
	}
}

// read decodes all consumers page by page, until send wants no more.
func (db *DB) read(tx *bbolt.Tx, send func([]decoded) bool) error {
	cursor, cache := tx.Bucket(bucketConsumers).Cursor(), limitsCache{}
	var page []decoded
	n := 0
	for k, v := cursor.First(); k != nil; k, v = cursor.Next() {
		c, err := decode(k, v, cache)
		page = append(page, decoded{c, err})
		if len(page) == readAhead {
			if !send(page) {
				return nil
			}
			page = make([]decoded, 0, readAhead)
		}
		if n++; n%releaseAfter == 0 {
			if err := db.release(); err != nil {
				return err
			}
		}
	}
	send(page)
	return nil
}

func decode(k, v []byte, cache limitsCache) (consumers.Consumer, error) {
	c, err := decodeConsumer(string(k), v, cache)
	if err != nil {
		return c, fmt.Errorf("consumer %q is damaged: %w: put a backup of the file in its place", k, err)
	}
	return c, nil
}

// List is Store.List.
func (s *Store) List(_ context.Context, after string, n int) (page []consumers.Consumer, next string, err error) {
	err = s.view(func(b *bbolt.Bucket) error {
		cursor := b.Cursor()
		k, v := cursor.Seek([]byte(after))
		if string(k) == after && k != nil && after != "" {
			k, v = cursor.Next()
		}
		for ; k != nil; k, v = cursor.Next() {
			if len(page) == n {
				next = page[n-1].ID
				return nil
			}
			c, err := decode(k, v, nil)
			if err != nil {
				return err
			}
			page = append(page, c)
		}
		return nil
	})
	return page, next, err
}

// Consumer is Store.Consumer.
func (s *Store) Consumer(_ context.Context, id string) (c consumers.Consumer, err error) {
	err = s.view(func(b *bbolt.Bucket) error {
		c, err = read(b, id)
		return err
	})
	return c, err
}

func (s *Store) view(f func(*bbolt.Bucket) error) error {
	return guard(s.db.path, func() error {
		return s.db.bolt.View(func(tx *bbolt.Tx) error { return f(tx.Bucket(bucketConsumers)) })
	})
}

func read(b *bbolt.Bucket, id string) (consumers.Consumer, error) {
	v := b.Get([]byte(id))
	if v == nil || id == "" {
		return consumers.Consumer{}, fmt.Errorf("consumer %q: %w", id, consumers.ErrNotFound)
	}
	return decode([]byte(id), v, nil)
}

// Put is Store.Put.
func (s *Store) Put(_ context.Context, c consumers.Consumer, m consumers.Match) (consumers.Consumer, error) {
	err := s.db.do(func(b *batch) (func() error, error) {
		old, err := b.consumer(c.ID, m)
		if err != nil {
			return nil, err
		}
		c.Tokens = old.Tokens
		return b.put(s.registry, &c)
	})
	return c, err
}

// Delete is Store.Delete.
func (s *Store) Delete(_ context.Context, id string, m consumers.Match) error {
	return s.db.do(func(b *batch) (func() error, error) {
		if _, err := read(b.consumers, id); err != nil {
			return nil, err
		}
		if _, err := b.consumer(id, m); err != nil {
			return nil, err
		}
		if err := b.consumers.Delete([]byte(id)); err != nil {
			return nil, err
		}
		return func() error {
			s.registry.Remove(s.db.options.Clock.Now(), id)
			return nil
		}, nil
	})
}

// IssueToken is Store.IssueToken.
func (s *Store) IssueToken(_ context.Context, id string, t consumers.Token) error {
	return s.edit(id, func(c *consumers.Consumer) error { return c.IssueToken(t) })
}

// RotateToken is Store.RotateToken.
func (s *Store) RotateToken(_ context.Context, id, token string, secret consumers.Hash, until time.Time) (t consumers.Token, err error) {
	err = s.edit(id, func(c *consumers.Consumer) error {
		var err error
		t, err = c.RotateToken(token, secret, s.db.options.Clock.Now().Std(), until)
		return err
	})
	return t, err
}

// RevokeToken is Store.RevokeToken.
func (s *Store) RevokeToken(_ context.Context, id, token string) error {
	return s.edit(id, func(c *consumers.Consumer) error { return c.RevokeToken(token) })
}

// Refresh is Store.Refresh. Nobody else can write to the file.
func (s *Store) Refresh(context.Context) error { return nil }

func (s *Store) edit(id string, change func(*consumers.Consumer) error) error {
	return s.db.do(func(b *batch) (func() error, error) {
		c, err := read(b.consumers, id)
		if err != nil {
			return nil, err
		}
		if err := change(&c); err != nil {
			return nil, err
		}
		return b.put(s.registry, &c)
	})
}

// batch is one transaction that several changes share.
type batch struct {
	db        *DB
	tx        *bbolt.Tx
	consumers *bbolt.Bucket
	secrets   map[consumers.Hash]string // given out in this batch, and to whom
}

func newBatch(db *DB, tx *bbolt.Tx) *batch {
	return &batch{db: db, tx: tx, consumers: tx.Bucket(bucketConsumers), secrets: map[consumers.Hash]string{}}
}

// consumer returns what is stored under an id, a zero one where nothing is, if
// the condition holds.
func (b *batch) consumer(id string, m consumers.Match) (consumers.Consumer, error) {
	v := b.consumers.Get([]byte(id))
	if v == nil || id == "" {
		if m != consumers.Always && m != consumers.IfAbsent {
			return consumers.Consumer{}, fmt.Errorf("consumer %q: %w", id, consumers.ErrConflict)
		}
		return consumers.Consumer{}, nil
	}
	c, err := decode([]byte(id), v, nil)
	switch {
	case err != nil:
		return c, err
	case m == consumers.IfAbsent:
		return c, fmt.Errorf("consumer %q: %w", id, consumers.ErrExists)
	case m != consumers.Always && uint64(m) != c.Version:
		return c, fmt.Errorf("consumer %q: %w", id, consumers.ErrConflict)
	}
	return c, nil
}

// put checks and writes a consumer with a new version.
func (b *batch) put(r *consumers.Registry, c *consumers.Consumer) (func() error, error) {
	if err := r.Check(*c); err != nil {
		return nil, err
	}
	for _, t := range c.Tokens {
		if owner, ok := b.secrets[t.Hash]; ok && owner != c.ID {
			return nil, fmt.Errorf("consumer %q: has a secret that %s was given at the same time", c.ID, owner)
		}
		b.secrets[t.Hash] = c.ID
	}
	version, err := b.consumers.NextSequence()
	if err != nil {
		return nil, err
	}
	c.Version = version
	v, err := encodeConsumer(c)
	if err != nil {
		return nil, err
	}
	if err := b.consumers.Put([]byte(c.ID), v); err != nil {
		return nil, err
	}
	written := *c
	return func() error { return r.Put(b.db.options.Clock.Now(), written) }, nil
}
