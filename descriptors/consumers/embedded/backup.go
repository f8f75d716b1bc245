package embedded

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Backup returns a copy of the file as it is now, with all that limiters have to
// remember. The copy is whole when Backup returns, and has no name: it is gone
// when it is closed, also by the end of the process. So whoever reads it slowly
// holds up no change, for which the database would otherwise have to grow under
// the reader.
func (db *DB) Backup() (*os.File, error) {
	if err := db.Flush(); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(db.path), "backup-*")
	if err != nil {
		return nil, fmt.Errorf("back up %s: %w", db.path, err)
	}
	err = os.Remove(f.Name())
	if err == nil {
		err = guard(db.path, func() error {
			return db.bolt.View(func(tx *bbolt.Tx) error {
				_, err := tx.WriteTo(f)
				return err
			})
		})
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("back up %s: %w", db.path, err), f.Close())
	}
	return f, nil
}

// ErrOccupied is Restore's: there is a store where the backup should go.
var ErrOccupied = errors.New("there is a store already")

// Restored tells what Restore did.
type Restored struct {
	Consumers, Tokens int
	Replaced          string // where the store is now that was there before; empty: there was none
}

// Restore puts a backup where Open will find it. Nothing is changed unless all
// of the backup can be read. A store that is there already, which no process may
// have open, is moved aside with replace, and is ErrOccupied without.
func Restore(backup io.Reader, path string, replace Replace) (r Restored, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "restore-*")
	if err != nil {
		return r, err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = io.Copy(f, bufio.NewReaderSize(backup, 1<<20))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return r, err
	}
	if r.Consumers, r.Tokens, err = verify(f.Name()); err != nil {
		return r, err
	}
	if r.Replaced, err = aside(path, replace); err != nil {
		return r, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return r, err
	}
	return r, syncFolder(filepath.Dir(path))
}

// Replace says what Restore does with a store that is there already.
type Replace bool

// What Restore does with a store that is there already.
const (
	KeepStore Replace = false // leaves it, and fails
	MoveStore Replace = true  // keeps it beside, with .replaced added to its name
)

// verify reads all of a backup, and changes nothing.
func verify(path string) (consumers, tokens int, err error) {
	err = caught(func() error {
		b, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
		if err != nil {
			return err
		}
		defer b.Close()
		return b.View(func(tx *bbolt.Tx) error {
			if err := sound(path, tx); err != nil {
				return err
			}
			cache := limitsCache{}
			return tx.Bucket(bucketConsumers).ForEach(func(k, v []byte) error {
				c, err := decodeConsumer(string(k), v, cache)
				if err != nil {
					return fmt.Errorf("consumer %q: %w", k, err)
				}
				consumers, tokens = consumers+1, tokens+len(c.Tokens)
				return nil
			})
		})
	})
	if err != nil {
		err = fmt.Errorf("this is no backup of Tollgate's, or it is damaged: %w: take another", err)
	}
	return consumers, tokens, err
}

// sound checks what a file is made of.
func sound(path string, tx *bbolt.Tx) (err error) {
	if err := whole(path, tx); err != nil {
		return err
	}
	for wrong := range tx.Check() { // to its end, or it would never end
		err = wrong
	}
	if err != nil {
		return err
	}
	for _, name := range buckets() {
		if tx.Bucket(name) == nil {
			return fmt.Errorf("it has no %s", name)
		}
	}
	return readable("the backup", tx.Bucket(bucketMeta))
}

// aside moves a store out of the way that nobody has open.
func aside(path string, replace Replace) (string, error) {
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if replace == KeepStore {
		return "", fmt.Errorf("%s: %w", path, ErrOccupied)
	}
	// Opened, so that it is locked while it moves; one that is damaged is moved all the same.
	var b *bbolt.DB
	err := guard(path, func() (err error) {
		b, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout})
		return err
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return "", explain(path, err)
	}
	to := path + ".replaced"
	err = os.Rename(path, to)
	if b != nil {
		err = errors.Join(err, b.Close())
	}
	return to, err
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
