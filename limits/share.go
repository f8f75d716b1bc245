package limits

import "math/bits"

// share is how much of a limiter is used: num of den, at most all of it. It is
// what a change of limit carries over.
type share struct{ num, den uint64 }

// shareOf returns used of capacity, with used cut to what is possible.
func shareOf(used, capacity int64) share {
	if capacity <= 0 {
		return share{}
	}
	return share{uint64(min(max(used, 0), capacity)), uint64(capacity)}
}

// of returns the share of capacity, rounded up: a change of limit never gives
// a part of a request away.
func (s share) of(capacity int64) int64 {
	if s.num == 0 || capacity <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(s.num, uint64(capacity))
	lo, carry := bits.Add64(lo, s.den-1, 0)
	q, _ := bits.Div64(hi+carry, lo, s.den)
	return int64(min(q, uint64(capacity)))
}

func (s share) float() float64 {
	if s.num == 0 {
		return 0
	}
	return float64(s.num) / float64(s.den)
}

// part returns the share of capacity, rounded down.
func (s share) part(capacity int64) int64 {
	if s.num == 0 || capacity <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(s.num, uint64(capacity))
	q, _ := bits.Div64(hi, lo, s.den)
	return int64(q)
}
