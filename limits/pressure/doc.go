// Package pressure decides when an upstream that throttles may be asked again.
// It is told what the upstream answered and what time it is; it starts no
// goroutine, reads no clock and knows no protocol.
//
// # The gate
//
// A [Gate] is open until the upstream refuses. A refusal freezes it: nothing may
// pass for the longer of what the upstream asked for and
//
//	initial * factor^n
//
// where n counts the violations in a row; it is 0 again after max without one.
// Refusals that arrive while the gate is frozen answer requests that were on
// their way before: they can prolong the pause, but are the same violation. The
// end of a pause only ever moves away.
//
// Then one request passes, the probe. If the upstream takes it, traffic comes
// back gradually: the number that may have passed doubles eight times until the
// ramp is over. If it refuses, the next pause is longer. A probe that is never
// answered blocks nobody for ever: another one follows after a while, and when
// that is lost too, traffic comes back as if the upstream had taken it.
//
//	open ──refused──> frozen ──until──> probing ──taken──> returning ──> open
//	                    ^                  │                   │
//	                    └─────refused──────┴──────refused──────┘
//
// # The working limit
//
// A [Share] is how much of a configured limit is used. When refusals come though
// the limit was kept, the upstream allows less than was thought: the share goes
// down, to what the upstream had accepted in the last period where that is known.
// After a while without a refusal it is raised in small steps; each time it was
// found too high again, that while is twice as long.
//
// Neither type may be used by two goroutines at once: their owner has a lock.
package pressure
