package embedded

import (
	"fmt"

	"go.etcd.io/bbolt"
)

// Notes returns what was put down with PutNote, by its name.
func (db *DB) Notes() (map[string][]byte, error) {
	notes := map[string][]byte{}
	err := guard(db.path, func() error {
		return db.bolt.View(func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketNotes).ForEach(func(k, sealed []byte) error {
				v, err := unseal(sealed)
				if err != nil {
					return fmt.Errorf("note %q: %w", k, err)
				}
				notes[string(k)] = append([]byte(nil), v...)
				return nil
			})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the notes in %s: %w", db.path, err)
	}
	return notes, nil
}

// PutNote keeps a value of the caller's own under a name, in place of what it
// was before. It is on disk when the call returns. Of concurrent calls the one
// that began last need not win.
func (db *DB) PutNote(name string, value []byte) error {
	return db.do(func(b *batch) (func() error, error) {
		return nil, b.tx.Bucket(bucketNotes).Put([]byte(name), seal(value))
	})
}
