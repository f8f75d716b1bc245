package redis

import (
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// How long a lease lasts here, and, later, in Redis: an instance must not use
// what Redis takes for used already, whatever its clock.
const (
	leaseLasts  = 3 * time.Second
	leaseInRest = 2 * leaseLasts
	entryNew    = time.Minute // from then on an entry that Redis does not have was lost, or it has an older one
)

// account is what a session has been granted, has used and has given back, and what
// of that Redis has heard. A session ends with a change of limit. Sums are told,
// never differences, so that it does no harm if a report or its answer is lost. In
// hand is what was granted and neither used nor returned. The limit's mu guards it.
type account struct {
	session int64
	reports int64 // the number of the last report
	answers bool  // Redis has answered one of this session
	leaving bool  // the report under way is the last of the session

	granted   int64
	used      int64 // as the last report has it
	acked     int64 // of used, what Redis has heard of
	returned  int64
	backTold  int64 // returned, as the last report has it
	backAcked int64 // of returned, what Redis has heard of

	entry entry       // that Redis has of this instance
	since limits.Time // the last exchange that was answered
	good  limits.Time // until when what is in hand is in hand in Redis too
}

// entry is when Redis made an entry of this instance, as far as that is known, and
// what it had been told before: acked, and told of what was admitted locally.
type entry struct {
	acked, told int64
	at          limits.Time
}

// spent is how many were used of what was granted, with left in hand.
func (a *account) spent(left int64) int64 { return a.granted - a.returned - left }

// over reports whether the lease is: Redis takes what is in hand back, or for used already.
func (a *account) over(now limits.Time) bool {
	return a.granted > 0 && (now >= a.good || a.since.Sub(now) > clockSet)
}

// silent is how long ago Redis has answered, 0 if never.
func (a *account) silent(now limits.Time) time.Duration {
	if !a.answers {
		return 0
	}
	return max(0, now.Sub(a.since))
}

// entryAt says which entry of this instance Redis must have: "0" if there may be
// none, "1" for one that is new, "2" for one that is old. told is what Redis knows
// of what was admitted locally, lasts how long it keeps an entry for sure.
func (a *account) entryAt(now limits.Time, told int64, lasts time.Duration) string {
	switch {
	case !a.answers || a.silent(now) >= lasts: // Redis makes a new one
		a.entry = entry{a.acked, told, now}
	case now.Sub(a.entry.at) < entryNew:
		return "1"
	default:
		return "2"
	}
	return "0"
}

// entryLasts is how long after an answer Redis has an entry of this instance for
// sure: of limits that count in periods it keeps one for a minute more.
func entryLasts(kind limits.Kind) time.Duration {
	if kind == limits.Quota || kind == limits.FixedWindow {
		return leaseInRest + time.Minute - clockSet
	}
	return leaseInRest - clockSet
}

// renew begins a session in which nothing was granted yet; told is what Redis knows
// of what was admitted locally.
func (a *account) renew(session, told int64) {
	a.session, a.granted, a.used, a.returned, a.backAcked = session, 0, 0, 0, 0
	a.entry.acked, a.entry.told = 0, told
}

// owes reports whether Redis does not know yet how things stand, with left in hand.
func (a *account) owes(left int64) bool {
	return left > 0 || a.spent(left) != a.acked || a.returned != a.backAcked
}

// giveBack takes up to n out of what is in hand, and returns how many; mu is held.
func (l *limit) giveBack(n int64) int64 {
	n = l.lease.Withdraw(n)
	l.account.returned += n
	l.cluster.stats.returned.Add(n)
	return n
}
