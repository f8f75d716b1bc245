package limits

import "time"

// Table holds live limiters by key, bounded in number.
type Table struct{}

// TableOptions bound a table.
type TableOptions struct {
	Size int           // limiters at most; 0 means 100000
	Idle time.Duration // forget a limiter unused for so long; 0 means an hour
}

// NewTable returns an empty table.
func NewTable(o TableOptions) *Table { panic("skeleton") }

// Limiter returns the limiter of key, made on first use. The key is copied
// when it is kept. A spec other than the one in force is set.
func (t *Table) Limiter(now Time, key []byte, s *Spec) *Limiter { panic("skeleton") }

// Len returns how many limiters are live.
func (t *Table) Len() int { panic("skeleton") }

// Evictions returns how many were forgotten to make room.
func (t *Table) Evictions() uint64 { panic("skeleton") }

// Expire forgets limiters idle for longer than the table's bound.
func (t *Table) Expire(now Time) int { panic("skeleton") }
