package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

// What is kept for followers, at most.
const (
	defaultKept      = 1024
	defaultKeptBytes = 4 << 20
)

// Event is one change.
type Event struct {
	Kind   string // what was done, as "consumer.set"; one of a fixed set
	What   string // to what, as "consumer billing"
	Actor  string // who did it, as "admin 10.0.0.7:51234"
	Before any    // how it was, as JSON; nil: it was not there, or it says nothing
	After  any    // how it is now, as JSON; nil: it is gone, or it says nothing
}

// entry is an event as it is told.
type entry struct {
	ID     string    `json:"id"`
	Time   time.Time `json:"time"`
	Actor  string    `json:"actor"`
	Kind   string    `json:"kind"`
	What   string    `json:"what"`
	Before any       `json:"before"`
	After  any       `json:"after"`
}

// Options of a log. The zero value is good.
type Options struct {
	Kept      int // events for followers; 0: 1024
	KeptBytes int // of them, but the last is always kept; 0: 4 MiB

	// Failed is told when an event could not be written, or made into JSON. It
	// is called from within Publish and must not publish. Nil ignores it.
	Failed func(error)
}

// Log is a record of events. All methods are safe for concurrent use.
type Log struct {
	o    Options
	boot string // the first part of every id: an id of an earlier run is none of this one

	mu      sync.Mutex
	first   uint64 // the number of kept[0]
	kept    []Record
	bytes   int
	sink    io.Writer
	changed chan struct{} // closed by the next event
	closed  bool
}

// Record is an event of a log, as JSON. It is shared and must not be changed.
type Record struct {
	ID   string // for [Log.Follow]
	JSON []byte // one line, without its end
}

// NewLog returns an empty log.
func NewLog(o Options) *Log {
	if o.Kept <= 0 {
		o.Kept = defaultKept
	}
	if o.KeptBytes <= 0 {
		o.KeptBytes = defaultKeptBytes
	}
	if o.Failed == nil {
		o.Failed = func(error) {}
	}
	return &Log{o: o, boot: strconv.FormatInt(time.Now().UnixMilli(), 36), changed: make(chan struct{})}
}

// SendTo makes the log write every further event to w, in order, a line each;
// nil: to nothing. Writes are not concurrent. The log does not close w, and does
// not use it any more when a further SendTo has returned.
func (l *Log) SendTo(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sink = w
}

// Publish adds an event. What it refers to may be changed afterwards.
func (l *Log) Publish(now time.Time, e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	id := l.id(l.first + uint64(len(l.kept)))
	told := entry{ID: id, Time: now.UTC(), Actor: e.Actor, Kind: e.Kind, What: e.What, Before: e.Before, After: e.After}
	data, err := json.Marshal(told)
	if err != nil {
		l.o.Failed(fmt.Errorf("event %s of %s: %w", e.Kind, e.What, err))
		return
	}
	if l.sink != nil {
		if _, err := l.sink.Write(append(data, '\n')); err != nil {
			l.o.Failed(fmt.Errorf("write event %s of %s: %w", e.Kind, e.What, err))
		}
	}
	l.keep(Record{ID: id, JSON: data})
	close(l.changed)
	l.changed = make(chan struct{})
}

// keep makes room by forgetting the oldest.
func (l *Log) keep(r Record) {
	l.kept, l.bytes = append(l.kept, r), l.bytes+len(r.JSON)
	drop := 0
	for len(l.kept)-drop > 1 && (len(l.kept)-drop > l.o.Kept || l.bytes > l.o.KeptBytes) {
		l.bytes -= len(l.kept[drop].JSON)
		l.kept[drop] = Record{}
		drop++
	}
	l.kept, l.first = l.kept[drop:], l.first+uint64(drop)
}

func (l *Log) id(n uint64) string { return l.boot + "-" + strconv.FormatUint(n, 10) }

// Close ends every follower. What is published afterwards is lost.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		close(l.changed)
	}
}

// Follower reads a log. It is not safe for concurrent use.
type Follower struct {
	log  *Log
	next uint64
	lost bool
}

// What [Follower.Next] returns where there is no next record. Test with errors.Is.
var (
	ErrLost   = errors.New("events were lost: they are not kept any more")
	ErrClosed = errors.New("the log is closed")
)

// Follow returns a reader of all events after the one of an id, or, where that
// is empty, of those still to come. Where the id's successor is not kept any
// more, or the id is none of this log, the first Next returns [ErrLost], and the
// follower goes on with the oldest that is kept.
func (l *Log) Follow(after string) *Follower {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := l.first + uint64(len(l.kept))
	f := &Follower{log: l, next: end}
	if after == "" {
		return f
	}
	boot, number, _ := strings.Cut(after, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || boot != l.boot || n >= end || n+1 < l.first {
		f.next, f.lost = l.first, true
		return f
	}
	f.next = n + 1
	return f
}

// Next waits for records and returns at least one. An [ErrLost] means that the
// follower was too slow and goes on with the oldest that is kept; after any
// other error, there is nothing more.
func (f *Follower) Next(ctx context.Context) ([]Record, error) {
	for {
		records, changed, err := f.take()
		if len(records) > 0 || err != nil {
			return records, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (f *Follower) take() (records []Record, changed <-chan struct{}, err error) {
	l := f.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.lost || f.next < l.first {
		f.next, f.lost = max(f.next, l.first), false
		return nil, nil, ErrLost
	}
	records = append(records, l.kept[f.next-l.first:]...)
	f.next += uint64(len(records))
	if len(records) == 0 && l.closed {
		return nil, nil, ErrClosed
	}
	return records, l.changed, nil
}
