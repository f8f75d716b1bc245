package embedded

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"go.etcd.io/bbolt"
)

// release unmaps the pages that were read: they stay in the system's cache, but
// no longer count as this process's memory. bbolt maps the whole file and would
// keep all that it ever touched.
func (db *DB) release() error {
	return db.bolt.View(func(tx *bbolt.Tx) error { // the mapping stays where it is meanwhile
		info, err := os.Stat(db.path)
		if err != nil {
			return err
		}
		start := db.bolt.Info().Data
		// The mapping is not Go's memory, so that its address may be taken as a pointer.
		pages := unsafe.Slice(*(**byte)(unsafe.Pointer(&start)), min(info.Size(), tx.Size()))
		if err := syscall.Madvise(pages, syscall.MADV_DONTNEED); err != nil {
			return fmt.Errorf("release the pages of %s: %w", db.path, err)
		}
		return nil
	})
}
