package admin

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"
)

// backupWithin is how long the reader of a backup may take for each part of it.
const backupWithin = time.Minute

// backupPart is as much as is sent before the time begins anew.
const backupPart = 1 << 20

// backUp answers with a copy of the store, one caller at a time: each copy takes
// as much disk as the store until it is read.
func (a *API) backUp(w http.ResponseWriter, r *http.Request) error {
	if !a.backups.TryLock() {
		w.Header().Set("retry-after", "5")
		return problemf(http.StatusServiceUnavailable, "another backup is under way: try again when it has ended")
	}
	defer a.backups.Unlock()
	f, err := a.o.Backup()
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	a.audit(r, backUpStore, "store", nil, nil)
	w.Header().Set("content-type", "application/octet-stream")
	w.Header().Set("content-disposition", `attachment; filename="tollgate.db"`)
	w.Header().Set("content-length", strconv.FormatInt(info.Size(), 10))
	if r.Method == http.MethodHead {
		return nil
	}
	c := http.NewResponseController(w)
	for err == nil {
		_ = c.SetWriteDeadline(time.Now().Add(backupWithin)) // one that cannot be set stays what it is
		_, err = io.CopyN(w, f, backupPart)
	}
	return nil // at its end, or whoever asked is gone: the length says which
}

// Backup writes a copy of the store to w. Where it returns an error, what was
// written is no backup.
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	_, err := c.do(ctx, call{path: "/v1/backup", copy: w})
	return err
}
