package limits

import "time"

// InitLimiter makes a limiter in place, as the table does in its entries.
func InitLimiter(l *Limiter, s *Spec, now Time) { l.init(s, now) }

// DelayTimer has time go by without the queue's timer.
func DelayTimer(q *Queue, d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.start = q.start.Add(-d)
	q.clock.offset.Add(int64(d))
}
