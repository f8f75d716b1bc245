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

// stateKeeper writes what limiters must remember.
type stateKeeper struct {
	mu       sync.Mutex
	registry *consumers.Registry
	unsaved  map[consumers.StateKey]consumers.SavedState // could not be written yet
	swept    []byte                                      // the last key that was looked at
}

// sweepEach is how many states are looked at with each flush, to forget those
// that say nothing any more.
const sweepEach = 200

// Remember tells the registry what its limiters must remember, and from then on
// writes down what they report. Call it once, before the first request.
func (db *DB) Remember(r *consumers.Registry) error {
	var states []consumers.SavedState
	now := db.options.Clock.Now()
	err := guard(db.path, func() error {
		return db.bolt.View(func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketStates).ForEach(func(k, v []byte) error {
				s, err := decodeState(k, v)
				if err == nil && now < s.Until {
					states = append(states, s)
				}
				return err
			})
		})
	})
	if err != nil {
		return fmt.Errorf("read the states in %s: %w", db.path, err)
	}
	r.Recall(states)
	db.states.mu.Lock()
	defer db.states.mu.Unlock()
	db.states.registry = r
	return nil
}

// Flush writes what limiters report now. It happens by itself too.
func (db *DB) Flush() error {
	return db.states.flush(db)
}

func (k *stateKeeper) flush(db *DB) error {
	return k.save(db, (*consumers.Registry).Unsaved)
}

func (k *stateKeeper) final(db *DB) error {
	return k.save(db, (*consumers.Registry).Final)
}

func (k *stateKeeper) save(db *DB, news func(*consumers.Registry, limits.Time) []consumers.SavedState) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.registry == nil {
		return nil
	}
	now := db.options.Clock.Now()
	for _, s := range news(k.registry, now) {
		if k.unsaved == nil {
			k.unsaved = map[consumers.StateKey]consumers.SavedState{}
		}
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
				if err != nil {
					return err
				}
				if err := b.Put(key[:], v); err != nil {
					return err
				}
			}
			return k.sweep(b, now)
		})
	})
	if err != nil {
		return fmt.Errorf("write limiter states to %s: %w", db.path, err)
	}
	k.unsaved = nil
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
