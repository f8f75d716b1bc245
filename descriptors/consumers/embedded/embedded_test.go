package embedded_test

import (
	"path/filepath"
	"testing"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/consumerstest"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/embedded"
	"github.com/tollgate-dev/tollgate/limits"
)

// source is a database file as the suite opens and closes it.
type source struct {
	path string
	db   *embedded.DB
}

func (s *source) Open(t *testing.T, r *consumers.Registry) consumers.Store {
	s.db = open(t, s.path)
	if err := s.db.Remember(r); err != nil {
		t.Fatal(err)
	}
	store, err := s.db.Consumers(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func (s *source) Close(t *testing.T) {
	if err := s.db.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
}

func open(t *testing.T, path string) *embedded.DB {
	t.Helper()
	db, err := embedded.Open(path, embedded.Options{
		Clock:  limits.NewClock(),
		Failed: func(err error) { t.Errorf("in the background: %v", err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func TestStore(t *testing.T) {
	consumerstest.RunStore(t, func(t *testing.T) consumerstest.Source {
		return &source{path: filepath.Join(t.TempDir(), "tollgate.db")}
	})
}
