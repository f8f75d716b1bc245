package embedded

import (
	"testing"

	"go.etcd.io/bbolt"
)

// Counters returns how many counters of a table are in the file.
func (db *DB) Counters(tb testing.TB) (n int) {
	tb.Helper()
	err := db.bolt.View(func(tx *bbolt.Tx) error {
		n = tx.Bucket(db.counters.bucket).Stats().KeyN
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return n
}
