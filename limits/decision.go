package limits

import (
	"math"
	"time"
)

// Never is the wait of a request that cannot be admitted however long it
// waits: a limit of 0, or a cost above what the limit can ever hold.
const Never = time.Duration(math.MaxInt64)

// Decision is what a limiter answers. A refusal is a decision, not an error.
type Decision struct {
	Allowed   bool
	Pending   bool          // not allowed, because a store must be asked first (see [Lease])
	Undecided bool          // not allowed, because the store cannot be asked and the limit says to deny then
	Remaining int64         // requests of cost 1 that would be admitted right now; MaxN while nothing is limited
	Wait      time.Duration // when refused: how long until the same request is admitted if no other comes; or Never
	Reset     time.Duration // until the limiter is as good as new if nothing comes
}

// never refuses for good.
func never(remaining int64, reset time.Duration) Decision {
	return Decision{Remaining: remaining, Wait: Never, Reset: reset}
}
