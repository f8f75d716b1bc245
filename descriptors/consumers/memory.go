package consumers

import (
	"crypto/sha256"

	"github.com/tollgate-dev/tollgate/limits"
)

// StateKey names a limiter across restarts: a hash of consumer, token and the
// limit's place.
type StateKey [16]byte

// SavedState is what one limiter must remember.
type SavedState struct {
	Key   StateKey
	State limits.State
	Until limits.Time // after it the state says nothing any more
}

// scope is whose requests a limiter counts.
type scope byte

const (
	scopeToken    scope = 't' // one token's
	scopeConsumer scope = 'c' // those of all tokens of a consumer
	scopeID       scope = 'i' // those by the consumer's id
)

// owns reports whether a limiter for the limit belongs to the scope.
func (s scope) owns(l Limit) bool {
	return l.PerConsumer == (s == scopeConsumer)
}

func stateKey(s scope, consumer, token, slot string) StateKey {
	b := make([]byte, 0, 192)
	b = append(b, byte(s))
	b = appendText(b, consumer)
	b = appendText(b, token)
	b = appendText(b, slot)
	h := sha256.Sum256(b)
	return StateKey(h[:len(StateKey{})])
}

// memory keeps the states of limiters that are not live: of tokens that were
// taken away, so that adding them again mints no second grace or quota, and of
// tokens that have not called since the restart. It is bounded: beyond max
// entries the outdated ones go, then any.
type memory struct {
	states map[StateKey]SavedState
	max    int
}

// maxRemembered bounds the states kept of tokens that were taken away.
const maxRemembered = 100_000

func (m *memory) put(now limits.Time, s SavedState) {
	if len(m.states) >= m.max {
		for k, old := range m.states {
			if now >= old.Until {
				delete(m.states, k)
			}
		}
		for k := range m.states {
			if len(m.states) < m.max {
				break
			}
			delete(m.states, k)
		}
	}
	m.states[s.Key] = s
}

func (m *memory) take(now limits.Time, k StateKey) (limits.State, bool) {
	s, ok := m.states[k]
	if !ok {
		return limits.State{}, false
	}
	delete(m.states, k)
	return s.State, now < s.Until
}
