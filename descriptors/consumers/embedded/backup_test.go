package embedded_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/embedded"
	"github.com/tollgate-dev/tollgate/limits"
)

// backup takes one, and returns it whole.
func backup(t *testing.T, db *embedded.DB) []byte {
	t.Helper()
	f, err := db.Backup()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestBackupUnderChange takes backups while consumers are made: each backup has
// all that was acknowledged before it was begun, can be restored, and holds no
// secret. Nothing is left in the folder.
func TestBackupUnderChange(t *testing.T) {
	dir := t.TempDir()
	s := &source{path: filepath.Join(dir, "tollgate.db")}
	r := consumers.NewRegistry(consumers.RegistryOptions{})
	store := s.Open(t, r)
	limited(t, store, 1000)
	for range 7 {
		now := limits.At(time.Now())
		g, _ := r.Resolve(now, "s")
		if !g.Limiter(0).Take(now, 1).Allowed {
			t.Fatal("refused")
		}
	}
	var made atomic.Int64
	var making sync.WaitGroup
	stop := make(chan struct{})
	for g := range 4 {
		making.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprintf("c-%d-%d", g, i)
				if _, err := store.Put(t.Context(), consumers.Consumer{ID: id}, consumers.Always); err != nil {
					t.Error(err)
				}
				if err := store.IssueToken(t.Context(), id, consumers.Token{ID: "t", Hash: consumers.HashOf("the-secret-of-" + id)}); err != nil {
					t.Error(err)
				}
				made.Add(1)
			}
		})
	}
	var backups [][]byte
	var least []int64
	for len(backups) < 3 {
		if n := made.Load(); n >= int64(len(backups)*20) { // changes went on since the last
			least = append(least, n)
			backups = append(backups, backup(t, s.db))
		}
	}
	close(stop)
	making.Wait()
	s.Close(t)
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("in the folder are %v, want the store alone", left)
	}

	for i, b := range backups {
		if bytes.Contains(b, []byte("the-secret-of-")) {
			t.Error("a backup holds secrets")
		}
		to := &source{path: filepath.Join(t.TempDir(), "tollgate.db")}
		did, err := embedded.Restore(bytes.NewReader(b), to.path, embedded.KeepStore)
		if err != nil {
			t.Fatal(err)
		}
		if did.Replaced != "" || int64(did.Consumers) < least[i]+1 || did.Tokens < did.Consumers-4 {
			t.Errorf("backup %d: %+v, want at least %d consumers, each with its token but the last", i, did, least[i]+1)
		}
		again := consumers.NewRegistry(consumers.RegistryOptions{})
		to.Open(t, again)
		if n, _ := again.Len(); n != did.Consumers {
			t.Errorf("backup %d: %d consumers in force, want %d", i, n, did.Consumers)
		}
		if got := remaining(t, again); got != 1000-7 {
			t.Errorf("backup %d: %d of the quota are left, want %d", i, got, 1000-7)
		}
		to.Close(t)
	}
}

func TestRestoreRefuses(t *testing.T) {
	s := &source{path: filepath.Join(t.TempDir(), "tollgate.db")}
	store := s.Open(t, consumers.NewRegistry(consumers.RegistryOptions{}))
	for i := range 200 {
		if _, err := store.Put(t.Context(), consumers.Consumer{ID: fmt.Sprint("c-", i), Labels: map[string]string{"marker": fmt.Sprint("value-", i)}}, consumers.Always); err != nil {
			t.Fatal(err)
		}
	}
	good := backup(t, s.db)
	s.Close(t)
	for name, bad := range map[string][]byte{
		"nothing":              nil,
		"another kind of file": bytes.Repeat([]byte("not a database\n"), 1000),
		"cut in half":          good[:len(good)/2/4096*4096],
		"cut to its head":      good[:8192],
		"pages gone":           append(bytes.Clone(good[:8192]), make([]byte, len(good)-8192)...),
		"a value changed":      bytes.ReplaceAll(good, []byte("value-77"), []byte("value-78")),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := embedded.Restore(bytes.NewReader(bad), filepath.Join(dir, "tollgate.db"), embedded.MoveStore)
			if err == nil || !strings.Contains(err.Error(), "no backup of Tollgate's, or it is damaged") {
				t.Errorf("Restore = %v, want to be told", err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestRestoreOver: a store that is there is never lost, nor taken from under a
// process that has it open.
func TestRestoreOver(t *testing.T) {
	dir := t.TempDir()
	s := &source{path: filepath.Join(dir, "tollgate.db")}
	store := s.Open(t, consumers.NewRegistry(consumers.RegistryOptions{}))
	put := func(id string) {
		t.Helper()
		if _, err := store.Put(t.Context(), consumers.Consumer{ID: id}, consumers.Always); err != nil {
			t.Fatal(err)
		}
	}
	put("early")
	early := backup(t, s.db)
	put("late")
	if _, err := embedded.Restore(bytes.NewReader(early), s.path, embedded.MoveStore); err == nil || !strings.Contains(err.Error(), "stop the other tollgate") {
		t.Errorf("over an open store: %v, want to be told", err)
	}
	s.Close(t)
	if _, err := embedded.Restore(bytes.NewReader(early), s.path, embedded.KeepStore); !errors.Is(err, embedded.ErrOccupied) {
		t.Errorf("over a store: %v, want ErrOccupied", err)
	}
	did, err := embedded.Restore(bytes.NewReader(early), s.path, embedded.MoveStore)
	if diff := cmp.Diff(embedded.Restored{Consumers: 1, Replaced: s.path + ".replaced"}, did); err != nil || diff != "" {
		t.Errorf("Restore = %v (-want +got):\n%s", err, diff)
	}
	for path, want := range map[string]int{s.path: 1, did.Replaced: 2} {
		r := consumers.NewRegistry(consumers.RegistryOptions{})
		kept := &source{path: path}
		kept.Open(t, r)
		if n, _ := r.Len(); n != want {
			t.Errorf("%s: %d consumers, want %d", path, n, want)
		}
		kept.Close(t)
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, want mode 0600", path, info, err)
		}
	}
}
