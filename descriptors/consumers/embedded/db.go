package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/tollgate-dev/tollgate/limits"
)

// The buckets of the file, and the version of what they hold.
var (
	bucketMeta      = []byte("meta")
	bucketConsumers = []byte("consumers") // id -> sealed JSON
	bucketSettings  = []byte("settings")
	bucketStates    = []byte("states")   // consumers.StateKey -> sealed state
	bucketCounters  = []byte("counters") // number of a chunk -> sealed counters, see counterLog
	bucketNotes     = []byte("notes")    // name -> sealed value of whoever put it there
	keyFormat       = []byte("format")
)

const format = 1

// FileName is the store's file in a data directory.
const FileName = "tollgate.db"

// lockTimeout is how long Open waits for another process to let go of the file.
const lockTimeout = time.Second

// flushEvery is how often states are written: what a kill can lose at most.
const flushEvery = 500 * time.Millisecond

// releaseEvery is how often the file's pages are given back to the system.
const releaseEvery = time.Minute

// maxBatch bounds the changes that share a transaction.
const maxBatch = 1000

// Options of a database. Clock must be set.
type Options struct {
	Clock *limits.Clock

	// Failed is told of errors in the background, such as a full disk; states
	// are kept and tried again. Nil ignores them.
	Failed func(error)
}

// DB is an open database file. All methods are safe for concurrent use.
type DB struct {
	bolt    *bbolt.DB
	path    string
	options Options

	work    chan *change
	stop    chan struct{}
	stopped chan struct{}
	closing sync.Once

	states   stateKeeper
	counters counterLog
}

// change is something to write. Its apply is called when it is on disk, in the
// order of the writes.
type change struct {
	write func(*batch) (apply func() error, err error)
	done  chan error
}

// Open opens the file, made if it is missing. The error says what to do about it.
func Open(path string, o Options) (*DB, error) {
	var b *bbolt.DB
	err := guard(path, func() (err error) {
		b, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
		return explain(path, err)
	})
	if err != nil {
		return nil, err
	}
	db := &DB{
		bolt: b, path: path, options: o,
		work: make(chan *change, maxBatch), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	if err := guard(path, db.prepare); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	go db.writer()
	return db, nil
}

// explain turns an error of opening into one that says what to do.
func explain(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("open %s: another process has it open: stop the other tollgate, or give this one its own --data-dir", path)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return damaged(path, err)
	}
	return fmt.Errorf("open %s: %w", path, err)
}

func damaged(path string, err error) error {
	return fmt.Errorf("%s is damaged (%w): put a backup in its place (`tollgate restore`), or move it away to start with an empty one; consumers and tokens are then to be made anew", path, err)
}

// guard calls f with whatever a damaged file makes of reading it as an error:
// bbolt checks its pages by panics, and a mapping of a file that was cut short
// faults.
func guard(path string, f func() error) error {
	err := caught(f)
	if broken, is := err.(fault); is { // and nothing that wraps one: that has its path already
		return damaged(path, broken)
	}
	return err
}

// fault is a panic that reading a damaged file ended in.
type fault struct{ what any }

func (f fault) Error() string { return fmt.Sprint(f.what) }

func caught(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fault{p}
		}
	}()
	return f()
}

// prepare checks the file and makes what is missing.
func (db *DB) prepare() error {
	err := db.bolt.View(func(tx *bbolt.Tx) error {
		if err := whole(db.path, tx); err != nil {
			return damaged(db.path, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return db.bolt.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets() {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		if meta.Get(keyFormat) == nil {
			return meta.Put(keyFormat, binary.BigEndian.AppendUint32(nil, format))
		}
		return readable(db.path, meta)
	})
}

// whole says whether the file is as long as it should be.
func whole(path string, tx *bbolt.Tx) error {
	info, err := os.Stat(path)
	if err == nil && info.Size() < tx.Size() {
		err = fmt.Errorf("%d bytes of %d are there", info.Size(), tx.Size())
	}
	return err
}

func buckets() [][]byte {
	return [][]byte{bucketMeta, bucketConsumers, bucketSettings, bucketStates, bucketCounters, bucketNotes}
}

// readable says whether this version can read what a file holds.
func readable(path string, meta *bbolt.Bucket) error {
	v := meta.Get(keyFormat)
	switch {
	case len(v) != 4:
		return damaged(path, errors.New("no format"))
	case binary.BigEndian.Uint32(v) != format:
		return fmt.Errorf("%s was written by another version of tollgate (format %d, this one reads %d): use that version", path, binary.BigEndian.Uint32(v), format)
	}
	return nil
}

// Close writes what is left and closes the file. Changes after it fail.
func (db *DB) Close() error {
	db.closing.Do(func() { close(db.stop) })
	<-db.stopped
	return errors.Join(db.states.save(db, true), db.counters.save(db, true), db.bolt.Close())
}

// errClosed is what changes get from a database that is closed.
var errClosed = errors.New("the database is closed")

// do writes a change and waits until it is on disk and applied.
func (db *DB) do(write func(*batch) (apply func() error, err error)) error {
	c := &change{write: write, done: make(chan error, 1)}
	select {
	case db.work <- c:
	case <-db.stop:
		return errClosed
	}
	select {
	case err := <-c.done:
		return err
	case <-db.stopped:
		select {
		case err := <-c.done:
			return err
		default:
			return errClosed
		}
	}
}

// writer writes changes until the database is closed: all that wait share one
// transaction, and so one fsync.
func (db *DB) writer() {
	defer close(db.stopped)
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	release := time.NewTicker(releaseEvery)
	defer release.Stop()
	for {
		select {
		case c := <-db.work:
			db.commit(db.gather(c))
		case <-tick.C:
			db.report(db.Flush())
		case <-release.C:
			db.report(db.release())
		case <-db.stop:
			for {
				select {
				case c := <-db.work:
					db.commit(db.gather(c))
				default:
					return
				}
			}
		}
	}
}

func (db *DB) report(err error) {
	if err != nil && db.options.Failed != nil {
		db.options.Failed(err)
	}
}

// gather takes what waits.
func (db *DB) gather(first *change) []*change {
	changes := []*change{first}
	for len(changes) < maxBatch {
		select {
		case c := <-db.work:
			changes = append(changes, c)
		default:
			return changes
		}
	}
	return changes
}

// commit writes changes together and applies those that could be made. One that
// is refused does not keep the others from being written.
func (db *DB) commit(changes []*change) {
	results := make([]error, len(changes))
	applies := make([]func() error, len(changes))
	err := guard(db.path, func() error {
		return db.bolt.Update(func(tx *bbolt.Tx) error {
			b := newBatch(db, tx)
			for i, c := range changes {
				applies[i], results[i] = c.write(b)
			}
			return nil
		})
	})
	for i, c := range changes {
		switch {
		case results[i] != nil:
		case err != nil:
			results[i] = fmt.Errorf("write %s: %w", db.path, err)
		case applies[i] != nil:
			results[i] = applies[i]()
		}
		c.done <- results[i]
	}
}
