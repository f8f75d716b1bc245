package embedded_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/descriptors/consumers/embedded"
	"github.com/tollgate-dev/tollgate/limits"
)

// What was put down is there after the file was opened anew, the last of each name.
func TestNotes(t *testing.T) {
	path := t.TempDir() + "/tollgate.db"
	open := func() *embedded.DB {
		db, err := embedded.Open(path, embedded.Options{Clock: limits.NewClock()})
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := open()
	for _, n := range [][2]string{{"a", "old"}, {"b", ""}, {"a", "new"}} {
		if err := db.PutNote(n[0], []byte(n[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.PutNote("late", nil); err == nil {
		t.Error("PutNote after Close succeeded")
	}
	db = open()
	defer func() { _ = db.Close() }()
	notes, err := db.Notes()
	if diff := cmp.Diff(map[string][]byte{"a": []byte("new"), "b": nil}, notes, cmp.Comparer(bytes.Equal)); diff != "" || err != nil {
		t.Errorf("Notes = %v (-want +got):\n%s", err, diff)
	}
}
