package sqlstore

import (
	"context"
	"fmt"
	"maps"
)

// Settings reads the settings that were changed.
func (f follows) Settings(ctx context.Context) (Settings, error) {
	rows, err := f.s.db.QueryContext(ctx, "SELECT name, value, configured FROM tollgate_settings")
	if err != nil {
		return nil, f.s.d.explain("read settings", err)
	}
	defer rows.Close()
	all := Settings{}
	for rows.Next() {
		var name string
		var v Setting
		if err := rows.Scan(&name, &v.Value, &v.Configured); err != nil {
			return nil, f.s.d.explain("read settings", err)
		}
		all[name] = v
	}
	return all, f.s.d.explain("read settings", rows.Err())
}

// Setting is a setting that was changed.
type Setting struct {
	Value      string
	Configured *string // what the file said at the change, which counts until the file says something else; nil: it always does
}

// Settings are the settings that were changed, by their names in the admin API.
type Settings map[string]Setting

func (s Settings) equal(t Settings) bool {
	return maps.EqualFunc(s, t, func(a, b Setting) bool {
		return a.Value == b.Value && (a.Configured == nil) == (b.Configured == nil) && (a.Configured == nil || *a.Configured == *b.Configured)
	})
}

// Value returns a setting that was changed and still counts, given what the
// file says.
func (s Settings) Value(name, configured string) (string, bool) {
	v, ok := s[name]
	return v.Value, ok && (v.Configured == nil || *v.Configured == configured)
}

// Settings returns the settings as they stood in the source last.
func (f *Follower) Settings() Settings {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.settings
}

// PutSettings keeps changed settings: by name the new value and what the file
// says. They are in force elsewhere as soon as they are seen there.
func (s *Store) PutSettings(ctx context.Context, changed Settings) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return s.d.explain("begin a change", err)
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	for name, v := range changed {
		if err := s.exec(ctx, tx, "DELETE FROM tollgate_settings WHERE name = ?", name); err != nil {
			return err
		}
		if err := s.exec(ctx, tx, "INSERT INTO tollgate_settings (name, value, configured) VALUES (?, ?, ?)", name, v.Value, v.Configured); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return s.d.explain("commit a change", err)
	}
	if err := s.Written(ctx); err != nil {
		return fmt.Errorf("the change is stored, but not in force here yet: %w", err)
	}
	return nil
}
