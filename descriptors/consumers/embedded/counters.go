package embedded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tollgate-dev/tollgate/limits"
)

// lasting is the period from which on a limit's use is kept over restarts. What
// a shorter one forgets, a restart takes about as long to forget.
const lasting = time.Minute

// maxCounters bounds the counters that a log is begun with, which callers can make
// new keys for. The log is begun anew before it has twice as many entries; while
// that lasts, the use of further keys is not kept.
const maxCounters = 500_000

// countersAtOnce bounds the counters that are written with a flush: callers choose
// how many they use. Where more are in use than that, a kill costs those that were
// not written yet more than a second.
const countersAtOnce = 5000

// counterLog is the counters of a table in the file: chunks of entries, in the
// order in which they were written, of which a key's last one counts. Keys are
// spread evenly, so that a record for each would cost a page of the file each.
//
// Once the log has grown to twice as many entries as there are limiters, it is
// begun anew: the table yields all of them again, and then what was written before
// goes. That of an earlier process stays, since not all of its keys may have come
// back; it is brought together at each start.
type counterLog struct {
	mu    sync.Mutex    // guards what follows
	table *limits.Table // nil while there is none
	next  uint64        // the number of the next chunk
	first uint64        // that of the first one that this process wrote and that is there
	begun uint64        // that of the first one since the log was begun anew
	size  int           // entries since then
	ends  int           // the round of the table that completes them; 0: they are complete
}

// RememberTable is Remember for the limiters of a table whose periods are a
// minute or longer. Keys are in the file as hashes.
func (db *DB) RememberTable(t *limits.Table) error {
	c := &db.counters
	c.mu.Lock()
	defer c.mu.Unlock()
	states, err := db.readCounters()
	if err == nil {
		err = guard(db.path, func() error { return db.bolt.Update(func(tx *bbolt.Tx) error { return c.rewrite(tx, states) }) })
	}
	if err != nil {
		return fmt.Errorf("read the counters in %s: %w", db.path, err)
	}
	t.Recall(states)
	c.table, c.first, c.begun = t, c.next, c.next
	return nil
}

// readCounters returns the counters that still say something.
func (db *DB) readCounters() (map[limits.KeyHash]limits.Recalled, error) {
	states := map[limits.KeyHash]limits.Recalled{}
	err := guard(db.path, func() error {
		return db.bolt.View(func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketCounters).ForEach(func(k, v []byte) error { return readChunk(k, v, states) })
		})
	})
	now := db.options.Clock.Now()
	maps.DeleteFunc(states, func(_ limits.KeyHash, r limits.Recalled) bool { return now >= r.Until })
	return states, err
}

// rewrite puts counters in the place of all that there are.
func (c *counterLog) rewrite(tx *bbolt.Tx, states map[limits.KeyHash]limits.Recalled) error {
	if err := tx.DeleteBucket(bucketCounters); err != nil {
		return err
	}
	b, err := tx.CreateBucket(bucketCounters)
	if err != nil {
		return err
	}
	var chunk []byte
	n := 0
	for name, r := range states {
		if n == maxCounters {
			break
		}
		chunk = appendCounter(chunk, name, r)
		if n++; n%countersAtOnce == 0 {
			if err := c.put(b, chunk); err != nil {
				return err
			}
			chunk = chunk[:0]
		}
	}
	return c.put(b, chunk)
}

// put appends a chunk to the log.
func (c *counterLog) put(b *bbolt.Bucket, chunk []byte) error {
	if len(chunk) == 0 {
		return nil
	}
	c.next++
	return b.Put(chunkKey(c.next-1), seal(chunk))
}

func chunkKey(number uint64) []byte { return binary.BigEndian.AppendUint64(nil, number) }

// save writes the counters that were used since the last time, the last time all
// of them.
func (c *counterLog) save(db *DB, last bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.table == nil {
		return nil
	}
	most := countersAtOnce
	if last {
		most = math.MaxInt
	}
	chunk, n, round := c.used(db.options.Clock.Now(), most)
	complete := c.ends > 0 && round >= c.ends
	if n == 0 && !complete {
		return nil
	}
	next, first, ends := c.next, c.first, c.ends
	err := guard(db.path, func() error {
		return db.bolt.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketCounters)
			if complete {
				if err := c.drop(b); err != nil {
					return err
				}
			}
			return c.put(b, chunk)
		})
	})
	if err != nil {
		c.next, c.first, c.ends = next, first, ends
		c.table.UseAll() // the next time, that is, what was not written too
		return fmt.Errorf("write the counters to %s: %w", db.path, err)
	}
	if c.size += n; c.ends == 0 && c.size > min(2*c.table.Len()+10*countersAtOnce, 2*maxCounters) {
		c.begun, c.size, c.ends = c.next, 0, round+2 // what is left of this round, and a whole one
		c.table.UseAll()
	}
	return nil
}

// used returns an encoded chunk of what is to be kept of limiters that were used
// and not told yet, how many they are, and the table's round.
func (c *counterLog) used(now limits.Time, most int) (chunk []byte, n, round int) {
	round = c.table.Used(now, most, func(name limits.KeyHash, l *limits.Limiter) {
		if o := l.Spec().Limit(); o.Kind != limits.Quota && o.Period < lasting || c.size+n >= 2*maxCounters {
			return
		}
		if lasts := l.Peek(now, 1).Reset; lasts > 0 {
			chunk = appendCounter(chunk, name, limits.Recalled{State: l.State(), Until: now.Add(lasts)})
			n++
		}
	})
	return chunk, n, round
}

// drop takes away what was written before the log was begun anew.
func (c *counterLog) drop(b *bbolt.Bucket) error {
	cursor, begun := b.Cursor(), chunkKey(c.begun)
	for k, _ := cursor.Seek(chunkKey(c.first)); k != nil && bytes.Compare(k, begun) < 0; k, _ = cursor.Seek(chunkKey(c.first)) {
		if err := cursor.Delete(); err != nil {
			return err
		}
	}
	c.first, c.ends = c.begun, 0
	return nil
}

// appendCounter appends an entry to a chunk.
func appendCounter(b []byte, name limits.KeyHash, r limits.Recalled) []byte {
	b = append(b, name[:]...)
	b = append(append(b, byte(len(r.State.Kind))), r.State.Kind...) // kinds are words
	for _, n := range [...]int64{r.State.A, r.State.B, r.State.C, int64(r.Until)} {
		b = binary.AppendVarint(b, n)
	}
	return b
}

// readChunk reads what is under a key: a chunk, or one counter by itself as they
// were written before there were chunks.
func readChunk(key, sealed []byte, into map[limits.KeyHash]limits.Recalled) error {
	if len(key) != len(chunkKey(0)) {
		s, err := decodeState(key, sealed)
		if _, newer := into[limits.KeyHash(s.Key)]; err == nil && !newer {
			into[limits.KeyHash(s.Key)] = limits.Recalled{State: s.State, Until: s.Until}
		}
		return err
	}
	b, err := unseal(sealed)
	var kind limits.Kind
	for err == nil && len(b) > 0 {
		b, kind, err = readCounter(b, kind, into)
	}
	return err
}

var errCounter = errors.New("a counter is cut short")

// readCounter reads an entry; kind is that of the one before, mostly the same.
func readCounter(b []byte, kind limits.Kind, into map[limits.KeyHash]limits.Recalled) ([]byte, limits.Kind, error) {
	var name limits.KeyHash
	at := copy(name[:], b)
	if at < len(name) || at == len(b) || at+1+int(b[at]) > len(b) {
		return nil, "", errCounter
	}
	text := b[at+1:][:b[at]]
	if string(text) != string(kind) {
		kind = limits.Kind(text)
	}
	at += 1 + len(text)
	var numbers [4]int64
	for i := range numbers {
		n, size := binary.Varint(b[at:])
		if size <= 0 {
			return nil, "", errCounter
		}
		numbers[i], at = n, at+size
	}
	into[name] = limits.Recalled{State: limits.State{Kind: kind, A: numbers[0], B: numbers[1], C: numbers[2]}, Until: limits.Time(numbers[3])}
	return b[at:], kind, nil
}
