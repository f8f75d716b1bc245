package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/limits"
)

// stateKeeper writes what the limiters of consumers must remember.
type stateKeeper struct {
	mu      sync.Mutex
	news    func(now limits.Time, last bool) []consumers.SavedState // nil while nobody has any
	unsaved map[consumers.StateKey]consumers.SavedState             // could not be written yet
	swept   []byte                                                  // the last key that was looked at
}

// sweepEach is how many states are looked at with each flush, to forget those
// that say nothing any more.
const sweepEach = 200

// Remember tells the registry what its limiters must remember, and from then on
// writes down what they report. Call it once, before the first request.
func (db *DB) Remember(r *consumers.Registry) error {
	states, err := db.states.read(db)
	if err != nil {
		return err
	}
	r.Recall(states)
	db.states.begin(func(now limits.Time, last bool) []consumers.SavedState {
		if last {
			return r.Final(now)
		}
		return r.Unsaved(now)
	})
	return nil
}

// Flush writes what limiters report now. It happens by itself too.
func (db *DB) Flush() error {
	return errors.Join(db.states.save(db, false), db.counters.save(db, false))
}

// read returns the states that still say something.
func (k *stateKeeper) read(db *DB) (states []consumers.SavedState, err error) {
	now := db.options.Clock.Now()
	err = guard(db.path, func() error {
		return db.bolt.View(func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketStates).ForEach(func(key, v []byte) error {
				s, err := decodeState(key, v)
				if err == nil && now < s.Until {
					states = append(states, s)
				}
				return err
			})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the states in %s: %w", db.path, err)
	}
	return states, nil
}

func (k *stateKeeper) begin(news func(limits.Time, bool) []consumers.SavedState) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.news = news
}

// save writes what there is, the last time all of it.
func (k *stateKeeper) save(db *DB, last bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.news == nil {
		return nil
	}
	now := db.options.Clock.Now()
	if k.unsaved == nil {
		k.unsaved = map[consumers.StateKey]consumers.SavedState{}
	}
	for _, s := range k.news(now, last) {
		k.unsaved[s.Key] = s
	}
	if len(k.unsaved) == 0 {
		return nil
	}
	err := guard(db.path, func() error {
		return db.bolt.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketStates)
			for key, s := range k.unsaved {
				v, err := encodeState(s)
				if err == nil {
					err = b.Put(key[:], v)
				}
				if err != nil {
					return err
				}
			}
			return k.sweep(b, now)
		})
	})
	if err != nil {
		return fmt.Errorf("write the states to %s: %w", db.path, err)
	}
	k.unsaved = nil // and the room of a busy time
	return nil
}

// sweep forgets outdated states, some at a time.
func (k *stateKeeper) sweep(b *bbolt.Bucket, now limits.Time) error {
	c := b.Cursor()
	key, v := c.Seek(k.swept)
	var outdated [][]byte
	for range sweepEach {
		if key == nil {
			break
		}
		if s, err := decodeState(key, v); err != nil || now >= s.Until {
			outdated = append(outdated, key)
		}
		key, v = c.Next()
	}
	k.swept = append(k.swept[:0], key...)
	for _, key := range outdated {
		if err := b.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// stateValue is a state as it stands in the file.
type stateValue struct {
	limits.State
	Until limits.Time
}

func encodeState(s consumers.SavedState) ([]byte, error) {
	b, err := json.Marshal(stateValue{s.State, s.Until})
	return seal(b), err
}

func decodeState(k, sealed []byte) (consumers.SavedState, error) {
	b, err := unseal(sealed)
	if err != nil {
		return consumers.SavedState{}, err
	}
	if len(k) != len(consumers.StateKey{}) {
		return consumers.SavedState{}, errors.New("a state's key is damaged")
	}
	var v stateValue
	err = json.Unmarshal(b, &v)
	return consumers.SavedState{Key: consumers.StateKey(k), State: v.State, Until: v.Until}, err
}
