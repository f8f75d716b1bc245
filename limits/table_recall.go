package limits

import (
	"crypto/sha256"
	"sync"
	"sync/atomic"
)

// KeyHash names a limiter of a table across restarts. It is a hash, because
// keys hold what callers sent.
type KeyHash [16]byte

// HashKey returns the name of a key.
func HashKey(key string) KeyHash {
	h := sha256.Sum256([]byte(key))
	return KeyHash(h[:len(KeyHash{})])
}

// Recalled is what an earlier process kept of a limiter by its [Limiter.State].
type Recalled struct {
	State State
	Until Time // after it the state says nothing any more
}

// recalled holds states until their keys are used.
type recalled struct {
	left atomic.Int64 // how many there are

	mu     sync.Mutex // guards states
	states map[KeyHash]Recalled
}

// Recall gives a table what an earlier process kept, before its first use. A
// key goes on from there when it is used first, whatever its limit is then.
// The table keeps the map.
func (t *Table) Recall(states map[KeyHash]Recalled) {
	t.recalled.mu.Lock()
	defer t.recalled.mu.Unlock()
	t.recalled.states = states
	t.recalled.left.Store(int64(len(states)))
}

// take returns the state of a key that is used for the first time.
func (r *recalled) take(now Time, h KeyHash) (State, bool) {
	if r.left.Load() == 0 {
		return State{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.states[h]
	if ok {
		delete(r.states, h)
		r.left.Add(-1)
	}
	return s.State, ok && now < s.Until
}

// expire drops what says nothing any more.
func (r *recalled) expire(now Time) {
	if r.left.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for h, s := range r.states {
		if now >= s.Until {
			delete(r.states, h)
		}
	}
	r.left.Store(int64(len(r.states)))
}
