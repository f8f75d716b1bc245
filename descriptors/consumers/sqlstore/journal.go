package sqlstore

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"time"
)

// The triggers of the schema number every change. Numbers are given when a row
// is written and seen when its transaction ends, so that a lower one may show
// after a higher one. The journal remembers the numbers that it has not seen
// and asks for those too, for as long as a transaction may reasonably take.

// Bounds of what is asked for and remembered.
const (
	maxEntries = 20_000    // read at a time
	maxBehind  = 200_000   // entries; beyond, reading everything is cheaper
	maxGaps    = 200       // ranges
	gapAge     = time.Hour // as long as entries are kept
	lookBack   = 1000      // numbers before the first call that may still be under way
)

// gap is a range of numbers that were not seen.
type gap struct {
	from, to int64
	since    time.Time
}

// journal is how far changes were read.
type journal struct {
	started bool
	last    int64
	gaps    []gap
}

// read returns what was written since the last call.
func (j *journal) read(ctx context.Context, s *Store) (c Changes, err error) {
	var newest sql.NullInt64
	if err := s.db.QueryRowContext(ctx, "SELECT MAX(seq) FROM tollgate_changes").Scan(&newest); err != nil {
		return c, err
	}
	switch {
	case !j.started:
		j.reset(newest.Int64)
		return c, nil // everything is read after this
	case newest.Int64 < j.last, newest.Int64-j.last > maxBehind:
		j.reset(newest.Int64)
		return Changes{All: true}, nil // another database, or too much at once
	}
	for {
		query, args := j.query(newest.Int64)
		if query == "" {
			return c, nil
		}
		n, err := j.entries(ctx, s, query, args, &c)
		if err != nil || n < maxEntries {
			return c, err
		}
	}
}

func (j *journal) reset(newest int64) {
	*j = journal{started: true, last: newest, gaps: []gap{{max(1, newest-lookBack), newest, time.Now()}}}
}

// query asks for what is new and for what was missing; it is empty where
// neither can be.
func (j *journal) query(newest int64) (string, []any) {
	now := time.Now()
	j.gaps = slices.DeleteFunc(j.gaps, func(g gap) bool { return now.Sub(g.since) > gapAge })
	if n := len(j.gaps) - maxGaps; n > 0 {
		j.gaps = slices.Delete(j.gaps, 0, n)
	}
	var conditions []string
	var args []any
	if newest > j.last {
		conditions, args = append(conditions, "seq > ?"), append(args, j.last)
	}
	for _, g := range j.gaps {
		conditions, args = append(conditions, "seq BETWEEN ? AND ?"), append(args, g.from, g.to)
	}
	if len(conditions) == 0 {
		return "", nil
	}
	return "SELECT seq, consumer FROM tollgate_changes WHERE " + strings.Join(conditions, " OR ") + " ORDER BY seq LIMIT ?", append(args, maxEntries)
}

func (j *journal) entries(ctx context.Context, s *Store, query string, args []any, c *Changes) (n int, err error) {
	rows, err := s.db.QueryContext(ctx, s.d.query(query), args...)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var seqs []int64
	for rows.Next() {
		var seq int64
		var consumer sql.NullString
		if err := rows.Scan(&seq, &consumer); err != nil {
			return 0, err
		}
		seqs = append(seqs, seq)
		switch {
		case !consumer.Valid:
			c.Settings = true
		case consumer.String == "":
			c.All = true
		case len(c.IDs) == 0 || c.IDs[len(c.IDs)-1] != consumer.String:
			c.IDs = append(c.IDs, consumer.String)
		}
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	j.seen(seqs, time.Now())
	return len(seqs), nil
}

// seen takes numbers, ascending, off the gaps and makes new ones of those that
// were passed over.
func (j *journal) seen(seqs []int64, now time.Time) {
	for _, seq := range seqs {
		if seq > j.last {
			if seq > j.last+1 {
				j.gaps = append(j.gaps, gap{j.last + 1, seq - 1, now})
			}
			j.last = seq
			continue
		}
		i := slices.IndexFunc(j.gaps, func(g gap) bool { return g.from <= seq && seq <= g.to })
		if i < 0 {
			continue
		}
		g := j.gaps[i]
		var rest []gap
		if g.from < seq {
			rest = append(rest, gap{g.from, seq - 1, g.since})
		}
		if seq < g.to {
			rest = append(rest, gap{seq + 1, g.to, g.since})
		}
		j.gaps = slices.Replace(j.gaps, i, i+1, rest...)
	}
}
