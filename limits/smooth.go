package limits

import (
	"fmt"
	"math"
	"time"
)

// smooth is Guava's RateLimiter, SmoothBursty and SmoothWarmingUp, operation
// for operation: microseconds are whole and permits are floating-point, so that
// the decisions are the same to the last. A request is admitted when the ones
// before it are paid for, and then pays for itself: the next one waits.
//
// A is the instant at which the next is admitted (nextFreeTicketMicros), B the
// bits of the permits that idleness has stored. For a bursty limiter more
// stored is more admitted, so its B is inverted.
//
// One thing differs: Guava's setRate honours old debt, while a [Limiter] whose
// limit changes waits at most one interval of the new rate.
type smooth struct {
	stable    float64 // microseconds per permit
	max       float64 // permits stored at most
	threshold float64 // stored permits up to here cost stable; 0 if warm is not set
	slope     float64 // and above it, this much more for each
	coolDown  float64 // microseconds of idleness that store a permit
	warm      bool
}

// coldFactor is how much dearer than stable a permit of a cold limiter is.
const coldFactor = 3.0

// newSmooth is Guava's create, with one second of bursts.
func newSmooth(l Limit) (*smooth, error) {
	rate := float64(l.N) / l.Period.Seconds()
	if rate > 1e6 {
		return nil, fmt.Errorf("%s: %s: want at most one per microsecond, the unit that this kind counts in", l.Kind, FormatRate(l.N, l.Period))
	}
	s := &smooth{stable: 1e6 / rate}
	if l.Kind == SmoothBursty {
		s.max, s.coolDown = rate, s.stable
		return s, nil
	}
	warmUp := float64(l.WarmUp.Ramp / time.Microsecond)
	cold := s.stable * coldFactor
	s.warm = true
	s.threshold = 0.5 * warmUp / s.stable
	s.max = s.threshold + 2*warmUp/(s.stable+cold)
	s.slope = (cold - s.stable) / (s.max - s.threshold)
	s.coolDown = warmUp / s.max
	return s, nil
}

// ticket is the state as Guava has it.
type ticket struct {
	nextFree int64 // microseconds
	stored   float64
}

func micros(t Time) int64 { return grid(time.Microsecond).at(int64(t)).index }

func (s *smooth) unpack(st State) ticket {
	bits := st.B
	if !s.warm {
		bits = ^bits
	}
	return ticket{micros(Time(st.A)), math.Float64frombits(uint64(bits))}
}

func (s *smooth) pack(k ticket) State {
	bits := int64(math.Float64bits(k.stored))
	if !s.warm {
		bits = ^bits
	}
	return State{A: k.nextFree * int64(time.Microsecond), B: bits}
}

// resync stores what idleness has earned.
func (s *smooth) resync(k ticket, now int64) ticket {
	if now > k.nextFree {
		k.stored = min(s.max, k.stored+float64(now-k.nextFree)/s.coolDown)
		k.nextFree = now
	}
	return k
}

// reserve takes n permits and moves nextFree by what they cost.
func (s *smooth) reserve(k ticket, now, n int64) ticket {
	k = s.resync(k, now)
	spend := min(float64(n), k.stored)
	fresh := float64(n) - spend
	cost := s.storedCost(k.stored, spend) + int64(min(fresh*s.stable, float64(longest)))
	k.nextFree += min(cost, latest/int64(time.Microsecond)-k.nextFree) // it saturates, as Guava's
	k.stored -= spend
	return k
}

// storedCost is what n of the stored permits cost: the area under the cost
// above the threshold, which is a trapezoid, and a rectangle below.
func (s *smooth) storedCost(stored, n float64) int64 {
	if !s.warm {
		return 0
	}
	var cost int64
	if above := stored - s.threshold; above > 0 {
		dear := min(above, n)
		length := s.costAt(above) + s.costAt(above-dear)
		cost = int64(dear * length / 2)
		n -= dear
	}
	return cost + int64(s.stable*n)
}

func (s *smooth) costAt(above float64) float64 { return s.stable + above*s.slope }

// Start implements [Algorithm]. A new warming limiter is cold, which is full. A
// new bursty one has nothing stored, other than one that has been idle for
// long; so one of which nothing is used is new, and a full one is a little less.
func (s *smooth) Start(now Time, used float64) State {
	k := ticket{nextFree: micros(now), stored: (1 - used) * s.max}
	switch {
	case used >= 1:
		k.nextFree += int64(math.Ceil(s.stable))
	case used == 0 && !s.warm:
		k.stored = 0
	}
	return s.pack(k)
}

// Peek implements [Algorithm].
func (s *smooth) Peek(st State, now Time, n int64) Decision {
	at, k := micros(now), s.unpack(st)
	d := Decision{Allowed: k.nextFree <= at, Reset: s.reset(k, now)}
	if !d.Allowed {
		d.Wait = Time(k.nextFree * int64(time.Microsecond)).Sub(now)
		return d
	}
	d.Remaining = s.free(s.resync(k, at), at)
	return d
}

// decide is Peek and, if that admits, Take and a Peek at what is left.
func (s *smooth) decide(k ticket, now Time, n int64) (ticket, Decision) {
	at := micros(now)
	d := Decision{Allowed: k.nextFree <= at}
	if !d.Allowed {
		d.Reset = s.reset(k, now)
		d.Wait = Time(k.nextFree * int64(time.Microsecond)).Sub(now)
		return k, d
	}
	k = s.reserve(k, at, n)
	d.Reset = s.reset(k, now)
	if k.nextFree <= at {
		d.Remaining = s.free(k, at)
	}
	return k, d
}

// free returns how many permits are admitted at once. What is stored costs a
// bursty limiter nothing. Then one is admitted whatever it costs, and after one
// whose cost was cut to nothing, as Guava cuts it, another.
func (s *smooth) free(k ticket, at int64) int64 {
	var n int64
	if !s.warm {
		n = int64(k.stored)
		if k.stored -= float64(n); int64((1-k.stored)*s.stable) > 0 {
			return n + 1 // what the loop comes to where the one has a cost
		}
	}
	for k.nextFree <= at {
		k = s.reserve(k, at, 1)
		n++
	}
	return n
}

// reset is until nothing is owed and, of a warming limiter, until it is cold.
func (s *smooth) reset(k ticket, now Time) time.Duration {
	free := k.nextFree
	if s.warm {
		free += int64(math.Ceil((s.max - k.stored) * s.coolDown))
	}
	return max(0, Time(free*int64(time.Microsecond)).Sub(now))
}

// Take implements [Algorithm].
func (s *smooth) Take(st State, now Time, n int64) State {
	return s.pack(s.reserve(s.unpack(st), micros(now), n))
}

// Refund implements [Algorithm]. Guava has none. What is owed is given back
// first, then what was stored.
func (s *smooth) Refund(st State, now Time, n int64) State {
	at, k := micros(now), s.unpack(st)
	back := float64(n)
	if !s.warm || k.stored == 0 {
		fresh := min(back, float64(max(0, k.nextFree-at))/s.stable)
		k.nextFree -= int64(math.Ceil(fresh * s.stable))
		back -= fresh
	}
	back = min(back, s.max-k.stored)
	k.stored += back
	k.nextFree = max(k.nextFree-s.storedCost(k.stored, back), at)
	return s.pack(k)
}

// Used implements [Algorithm].
func (s *smooth) Used(st State, now Time) float64 {
	at, k := micros(now), s.unpack(st)
	if k.nextFree > at {
		return 1
	}
	return max(1-s.resync(k, at).stored/s.max, 1e-12)
}
