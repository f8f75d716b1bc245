package embedded

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	"go.etcd.io/bbolt"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
)

// Settings are what the admin API may change of the configuration. A zero
// member stands as configured.
type Settings struct {
	Mode    string            `json:"mode,omitempty"`
	Default *consumers.Limits `json:"default_limit,omitempty"`
	Level   string            `json:"log_level,omitempty"`
}

// stored is a change with what the file said when it was made.
type stored struct {
	Changed    Settings `json:"changed"`
	Configured Settings `json:"configured"`
}

var keySettings = []byte("settings")

// Settings returns what was changed and still counts: a changed value wins
// until the configured one is another than it was at the change.
func (db *DB) Settings(configured Settings) (s Settings, err error) {
	var st stored
	err = guard(db.path, func() error {
		return db.bolt.View(func(tx *bbolt.Tx) error {
			st, err = readSettings(tx)
			return err
		})
	})
	if err != nil {
		return s, fmt.Errorf("read the settings in %s: %w", db.path, err)
	}
	if st.Configured.Mode == configured.Mode {
		s.Mode = st.Changed.Mode
	}
	if alike(st.Configured.Default, configured.Default) {
		s.Default = st.Changed.Default
	}
	if st.Configured.Level == configured.Level {
		s.Level = st.Changed.Level
	}
	return s, nil
}

// PutSettings keeps a change, durably. Zero members stay as they were; configured
// is what the file says now. apply is called when the change is on disk, in the
// order of the changes.
func (db *DB) PutSettings(_ context.Context, s, configured Settings, apply func()) error {
	return db.do(func(b *batch) (func() error, error) {
		st, err := readSettings(b.tx)
		if err != nil {
			return nil, err
		}
		if s.Mode != "" {
			st.Changed.Mode, st.Configured.Mode = s.Mode, configured.Mode
		}
		if s.Default != nil {
			st.Changed.Default, st.Configured.Default = s.Default, configured.Default
		}
		if s.Level != "" {
			st.Changed.Level, st.Configured.Level = s.Level, configured.Level
		}
		v, err := json.Marshal(st)
		if err != nil {
			return nil, err
		}
		if err := b.tx.Bucket(bucketSettings).Put(keySettings, seal(v)); err != nil {
			return nil, err
		}
		return func() error { apply(); return nil }, nil
	})
}

func readSettings(tx *bbolt.Tx) (st stored, err error) {
	v := tx.Bucket(bucketSettings).Get(keySettings)
	if v == nil {
		return st, nil
	}
	if v, err = unseal(v); err != nil {
		return st, err
	}
	return st, json.Unmarshal(v, &st)
}

func alike(a, b *consumers.Limits) bool {
	return a == nil && b == nil || a != nil && b != nil && reflect.DeepEqual(*a, *b)
}
