package webhook

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// ErrFull is returned when a queue holds about as many jobs as it may.
var ErrFull = errors.New("the queue is full")

// maxJobs bounds a queue. Jobs are one per record, so that a storm of events
// for one record is one job.
const maxJobs = 100_000

// Job is something to refresh.
type Job struct {
	Upstream string    `json:"upstream"`
	Kind     Subject   `json:"kind"`
	Name     string    `json:"name,omitempty"` // of the record
	First    time.Time `json:"first"`          // when the oldest event that waits came
	Last     time.Time `json:"last"`           // when the latest did
	Version  uint64    `json:"version"`        // grows with each event
}

// Subject is what a job is for.
type Subject string

// The subjects.
const (
	ByUID   Subject = "uid"   // a record, by its uid
	ByTitle Subject = "title" // a record, by its title
	Every   Subject = "every" // all records of the upstream's stores
	Net     Subject = "net"   // what External Secrets does not refresh often enough by itself
)

func (j Job) key() []byte {
	return fmt.Appendf(nil, "%d:%s%d:%s%s", len(j.Upstream), j.Upstream, len(j.Kind), j.Kind, j.Name)
}

// Queue keeps jobs on disk until they are done, and which events were seen. Its
// methods are safe for concurrent use.
type Queue struct {
	db      *bbolt.DB
	wake    chan struct{} // holds one when there may be something new
	waiting atomic.Int64  // jobs, about: exact after Jobs
}

// Buckets: jobs by what they are for, events by their digest with the time until
// which they are known, and times of what happens seldom by name.
const (
	jobsBucket  = "jobs"
	seenBucket  = "seen"
	timesBucket = "times"
)

// OpenQueue opens the queue in a file, which is made where it is not there. One
// process has it at a time.
func OpenQueue(file string) (*Queue, error) {
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: 2 * time.Second})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, fmt.Errorf("queue %s is in use: one tollgate-eso may run on a data folder", file)
	}
	if err != nil {
		return nil, fmt.Errorf("queue %s: %w", file, err)
	}
	q := &Queue{db: db, wake: make(chan struct{}, 1)}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, b := range []string{jobsBucket, seenBucket, timesBucket} {
			if _, err := tx.CreateBucketIfNotExists([]byte(b)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("queue %s: %w", file, err), db.Close())
	}
	q.signal() // what an earlier process left
	return q, nil
}

// Close ends the queue. What it holds stays.
func (q *Queue) Close() error { return q.db.Close() }

// Wake holds a value when there may be jobs that [Queue.Jobs] has not returned.
func (q *Queue) Wake() <-chan struct{} { return q.wake }

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Put adds jobs of an event, unless the event was seen before; then fresh is
// false. When it returns without an error, they are on disk. A job that waits
// already takes the event in.
func (q *Queue) Put(now time.Time, event Digest, known time.Duration, jobs []Job) (fresh bool, err error) {
	if q.waiting.Load()+int64(len(jobs)) > maxJobs {
		return false, ErrFull
	}
	err = q.db.Batch(func(tx *bbolt.Tx) error {
		fresh = false // a batch may run this again
		seen := tx.Bucket([]byte(seenBucket))
		if until := seen.Get(event[:]); until != nil && now.UnixNano() < int64(binary.BigEndian.Uint64(until)) {
			return nil
		}
		if err := seen.Put(event[:], binary.BigEndian.AppendUint64(nil, uint64(now.Add(known).UnixNano()))); err != nil {
			return err
		}
		fresh = true
		for _, j := range jobs {
			if err := put(tx, now, j); err != nil {
				return err
			}
		}
		return nil
	})
	if fresh && err == nil && len(jobs) > 0 {
		q.waiting.Add(int64(len(jobs)))
		q.signal()
	}
	return fresh && err == nil, err
}

// Add adds a job that no event asked for.
func (q *Queue) Add(now time.Time, j Job) error {
	err := q.db.Update(func(tx *bbolt.Tx) error { return put(tx, now, j) })
	q.signal()
	return err
}

func put(tx *bbolt.Tx, now time.Time, j Job) error {
	jobs := tx.Bucket([]byte(jobsBucket))
	j.First, j.Last = now, now
	if data := jobs.Get(j.key()); data != nil {
		var waiting Job
		if err := json.Unmarshal(data, &waiting); err != nil {
			return err
		}
		j.First = waiting.First
	}
	version, err := jobs.NextSequence()
	if err != nil {
		return err
	}
	j.Version = version
	data, err := json.Marshal(j)
	if err != nil {
		return err
	}
	return jobs.Put(j.key(), data)
}

// Jobs returns what waits, oldest first.
func (q *Queue) Jobs() ([]Job, error) {
	var all []Job
	err := q.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(jobsBucket)).ForEach(func(_, data []byte) error {
			var j Job
			if err := json.Unmarshal(data, &j); err != nil {
				return err
			}
			all = append(all, j)
			return nil
		})
	})
	q.waiting.Store(int64(len(all)))
	slices.SortFunc(all, func(a, b Job) int { return a.First.Compare(b.First) })
	return all, err
}

// Done takes jobs away, but not those that a later event has changed.
func (q *Queue) Done(jobs ...Job) error {
	if len(jobs) == 0 {
		return nil
	}
	return q.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(jobsBucket))
		for _, j := range jobs {
			data := b.Get(j.key())
			if data == nil {
				continue
			}
			var waiting Job
			if err := json.Unmarshal(data, &waiting); err != nil {
				return err
			}
			if waiting.Version != j.Version {
				continue
			}
			if err := b.Delete(j.key()); err != nil {
				return err
			}
		}
		return nil
	})
}

// Forget drops events that need not be known any more.
func (q *Queue) Forget(now time.Time) error {
	return q.db.Update(func(tx *bbolt.Tx) error {
		c := tx.Bucket([]byte(seenBucket)).Cursor()
		var old [][]byte
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if int64(binary.BigEndian.Uint64(v)) <= now.UnixNano() {
				old = append(old, bytes.Clone(k))
			}
		}
		for _, k := range old {
			if err := tx.Bucket([]byte(seenBucket)).Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
}

// Time returns when something named was, as [Queue.SetTime] kept it; zero: never.
func (q *Queue) Time(name string) (t time.Time, err error) {
	err = q.db.View(func(tx *bbolt.Tx) error {
		if data := tx.Bucket([]byte(timesBucket)).Get([]byte(name)); data != nil {
			return t.UnmarshalText(data)
		}
		return nil
	})
	return t, err
}

// SetTime keeps when something named was.
func (q *Queue) SetTime(name string, t time.Time) error {
	data, err := t.MarshalText()
	if err != nil {
		return err
	}
	return q.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(timesBucket)).Put([]byte(name), data) })
}
