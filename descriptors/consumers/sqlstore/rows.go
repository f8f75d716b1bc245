package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
)

// columns are what makes a row, in the order that scan reads.
func (d *Dialect) columns() string {
	return "c.id, c.plan, c.limits, c.labels, c.disabled, c.version, t.id, t.sha256, " +
		d.Micros("t.expires") + ", " + d.Micros("t.created") + ", t.previous, " + d.Micros("t.previous_until")
}

// scanned is one line of the join of consumers and their tokens.
type scanned struct {
	id                 string
	plan, limits       sql.NullString
	labels             []byte
	disabled           bool
	version            int64
	token              sql.NullString
	hash, previous     []byte
	expires, made, til sql.NullFloat64
}

func (l *scanned) scan(rows *sql.Rows) error {
	return rows.Scan(&l.id, &l.plan, &l.limits, &l.labels, &l.disabled, &l.version,
		&l.token, &l.hash, &l.expires, &l.made, &l.previous, &l.til)
}

// limitsCache keeps limits by their text: in a large database they are often
// alike, and reading them is most of the work. Those it returns are shared.
type limitsCache map[string]consumers.Limits

const maxCached = 10_000

func (c limitsCache) read(text string) (ls consumers.Limits, err error) {
	if ls, ok := c[text]; ok {
		return ls, nil
	}
	if ls, err = parseLimits(text); err == nil && len(c) < maxCached {
		c[text] = ls
	}
	return ls, err
}

// parseLimits reads limits as people write them: 100/s, none, or the JSON of the
// admin API.
func parseLimits(text string) (ls consumers.Limits, err error) {
	data := []byte(strings.TrimSpace(text))
	if len(data) == 0 || data[0] != '[' && data[0] != '"' {
		data, err = json.Marshal(text)
		if err != nil {
			return nil, err
		}
	}
	if err := ls.UnmarshalJSON(data); err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	return ls, nil
}

// collect makes consumers of the lines of a query, which come ordered by them.
func (s *Store) collect(ctx context.Context, tx Execer, query string, args ...any) ([]Row, error) {
	rows, err := tx.QueryContext(ctx, s.d.query(query), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Row
	cache := limitsCache{}
	for rows.Next() {
		var l scanned
		if err := l.scan(rows); err != nil {
			return nil, err
		}
		if len(all) == 0 || all[len(all)-1].Consumer.ID != l.id {
			all = append(all, l.consumer(cache))
		}
		if row := &all[len(all)-1]; l.token.Valid {
			t, err := l.readToken()
			if err != nil && row.Err == nil {
				row.Err = fmt.Errorf("token %q: %w", l.token.String, err)
			}
			row.Consumer.Tokens = append(row.Consumer.Tokens, t)
		}
	}
	return all, rows.Err()
}

func (l *scanned) consumer(cache limitsCache) Row {
	r := Row{Consumer: consumers.Consumer{ID: l.id, Plan: l.plan.String, Disabled: l.disabled, Version: uint64(l.version)}}
	c := &r.Consumer
	if l.limits.Valid {
		c.Limits, r.Err = cache.read(l.limits.String)
	}
	if string(l.labels) != "{}" {
		if err := json.Unmarshal(l.labels, &c.Labels); err != nil && r.Err == nil {
			r.Err = fmt.Errorf("labels: want a JSON object of strings, as {\"team\": \"payments\"}: %w", err)
		}
	}
	return r
}

func (l *scanned) readToken() (t consumers.Token, err error) {
	t = consumers.Token{ID: l.token.String, Expires: At(l.expires), Created: At(l.made)}
	if copy(t.Hash[:], l.hash) != len(t.Hash) || len(l.hash) != len(t.Hash) {
		return t, fmt.Errorf("sha256: has %d bytes, want the 32 of a SHA-256", len(l.hash))
	}
	if len(l.previous) == 0 {
		return t, nil
	}
	if copy(t.Previous[:], l.previous) != len(t.Previous) || len(l.previous) != len(t.Previous) {
		return t, fmt.Errorf("previous: has %d bytes, want the 32 of a SHA-256", len(l.previous))
	}
	t.PreviousUntil = At(l.til)
	return t, nil
}

// At reads microseconds since the Unix epoch. A time beyond what Go knows is
// one that does not come, or long past.
func At(micros sql.NullFloat64) time.Time {
	const first, last = -62135596800e6 + 1e6, 253402300799e6 // years 1 to 9999
	switch {
	case !micros.Valid:
		return time.Time{}
	case math.IsNaN(micros.Float64):
		return time.UnixMicro(0).UTC()
	}
	return time.UnixMicro(int64(math.Round(min(max(micros.Float64, first), last)))).UTC()
}

// version is another one with every change of a consumer or its tokens, whoever
// made it: the column that our own changes draw anew, and all the rest.
func version(c *consumers.Consumer) uint64 {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %q %q %t %t ", c.Version, c.ID, c.Plan, c.Disabled, c.Limits == nil)
	limits, _ := c.Limits.MarshalJSON() // none of what was read fails
	labels, _ := json.Marshal(c.Labels)
	b.Write(limits)
	b.Write(labels)
	for i := range c.Tokens {
		t := &c.Tokens[i]
		fmt.Fprintf(&b, " %q %x %d %d %x %d", t.ID, t.Hash, t.Expires.UnixMicro(), t.Created.UnixMicro(), t.Previous, t.PreviousUntil.UnixMicro())
	}
	h := consumers.HashOf(b.String())
	var v uint64
	for _, x := range h[:8] {
		v = v<<8 | uint64(x)
	}
	return v>>1 | 1 // neither consumers.Always nor consumers.IfAbsent
}
