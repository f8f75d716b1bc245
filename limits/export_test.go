package limits

import "time"

// DelayTimer has time go by without the queue's timer.
func DelayTimer(q *Queue, d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.start = q.start.Add(-d)
	q.clock.offset.Add(int64(d))
}
