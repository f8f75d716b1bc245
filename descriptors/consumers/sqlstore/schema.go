package sqlstore

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
)

// migrate brings the schema up to date: all of it on an empty database, nothing
// on one that is. Instances that start at once take turns.
func (s *Store) migrate(ctx context.Context) error {
	steps, err := fs.Glob(s.d.Schema, "*.sql") // sorted by name
	if err != nil {
		return err
	}
	newest := len(steps)
	version, err := s.schemaVersion(ctx, s.db)
	if err != nil {
		return s.d.explain("read the schema's version", err)
	}
	if version == newest {
		return nil
	}
	err = s.d.Locked(ctx, s.db, func(ctx context.Context, tx Execer) error {
		version, err := s.schemaVersion(ctx, tx)
		if err != nil {
			return err
		}
		if version > newest {
			return fmt.Errorf("%w: its schema has version %d and this tollgate knows up to %d: use a newer tollgate", ErrUnusable, version, newest)
		}
		for i, name := range steps[version:] {
			if err := s.step(ctx, tx, name, version+i+1); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && s.d.Explain(err) == Denied {
		err = fmt.Errorf("%w: this user may not make tables and triggers (%w): let one who may apply the files of schema/ once, or grant it", ErrUnusable, err)
	}
	return s.d.explain("make the schema", err)
}

// schemaVersion is 0 for a database without our tables.
func (s *Store) schemaVersion(ctx context.Context, tx Execer) (version int, err error) {
	var tables int
	if err := tx.QueryRowContext(ctx, s.d.query(s.d.HasTable), "tollgate_schema").Scan(&tables); err != nil || tables == 0 {
		return 0, err
	}
	err = tx.QueryRowContext(ctx, "SELECT COALESCE(MAX(version), 0) FROM tollgate_schema").Scan(&version)
	return version, err
}

// step runs one file. Its statements can be run again where they were
// interrupted.
func (s *Store) step(ctx context.Context, tx Execer, name string, version int) error {
	text, err := fs.ReadFile(s.d.Schema, name)
	if err != nil {
		return err
	}
	for statement := range strings.SplitSeq(string(text), "\n--\n") {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	_, err = tx.ExecContext(ctx, s.d.query("INSERT INTO tollgate_schema (version) VALUES (?)"), version)
	return err
}
