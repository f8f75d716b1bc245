package embedded

import (
	"testing"

	"go.etcd.io/bbolt"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/limits"
)

// Counters returns how many counters of a table are in the file.
func (db *DB) Counters(tb testing.TB) (n int) {
	tb.Helper()
	states, err := db.readCounters()
	if err != nil {
		tb.Fatal(err)
	}
	return len(states)
}

// Entries returns how many entries the log of counters has.
func (db *DB) Entries(tb testing.TB) (n int) {
	tb.Helper()
	err := db.bolt.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketCounters).ForEach(func(_, v []byte) error {
			b, err := unseal(v)
			for ; err == nil && len(b) > 0; n++ {
				b, _, err = readCounter(b, "", map[limits.KeyHash]limits.Recalled{})
			}
			return err
		})
	})
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// PutCounter writes a counter as it was written when each had a record.
func (db *DB) PutCounter(tb testing.TB, s consumers.SavedState) {
	tb.Helper()
	v, err := encodeState(s)
	if err == nil {
		err = db.bolt.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketCounters).Put(s.Key[:], v) })
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// Hold keeps everything from being written until it is let go.
func (db *DB) Hold(tb testing.TB) (letGo func()) {
	tb.Helper()
	tx, err := db.bolt.Begin(true)
	if err != nil {
		tb.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(); err != nil {
			tb.Error(err)
		}
	}
}

// Decode reads a consumer without its checksum, first as most are read and then as
// any can be; quick is false where the first way does not know it.
func Decode(value []byte) (first consumers.Consumer, quick bool, any consumers.Consumer, err error) {
	first = consumers.Consumer{ID: "a"}
	quick = (&cursor{value}).consumer(&first, nil)
	any, err = decodeJSON("a", value, nil)
	return first, quick, any, err
}

// Encode is what a consumer is in the file, without its checksum.
func Encode(c consumers.Consumer) ([]byte, error) {
	sealed, err := encodeConsumer(&c)
	return sealed[4:], err
}
