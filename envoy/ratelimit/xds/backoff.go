package xds

import "time"

// Backoff says how long to wait between attempts to reach the server.
type Backoff struct {
	Initial time.Duration // before the second attempt; 0 means 1s
	Max     time.Duration // never longer; 0 means 1m
	Jitter  float64       // each wait is shortened by up to this part of it; 0 means 0.5, less than 0 means none
}

func (b Backoff) withDefaults() Backoff {
	if b.Initial <= 0 {
		b.Initial = time.Second
	}
	if b.Max <= 0 {
		b.Max = time.Minute
	}
	b.Max = max(b.Max, b.Initial)
	if b.Jitter == 0 {
		b.Jitter = 0.5
	}
	b.Jitter = min(max(b.Jitter, 0), 1)
	return b
}

// wait returns how long to wait after so many failures in a row, at least 1:
// twice as long each time. random is from [0, 1).
func (b Backoff) wait(failures int, random float64) time.Duration {
	d := b.Initial
	for i := 1; i < failures && d < b.Max; i++ {
		d = min(d, b.Max-d) + d // twice as long, but not beyond Max
	}
	return d - time.Duration(b.Jitter*random*float64(d))
}
