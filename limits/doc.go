// Package limits decides whether a request may pass now. It knows what is
// allowed (a [Limit], compiled to a [Spec]) and how much of it is used (a
// [Limiter]), and it is told what time it is. It starts no goroutine, opens no
// file and speaks no protocol, so that it can be imported by anything that has
// something to limit.
//
//	spec, err := limits.Compile(limits.Limit{Kind: limits.Rate, N: 100, Period: time.Second})
//	clock := limits.NewClock()
//	limiter := limits.New(spec, clock.Now())
//	if d := limiter.Take(clock.Now(), 1); !d.Allowed {
//		// come back in d.Wait
//	}
//
// # How to choose
//
// All kinds let N requests pass per period in the long run. They differ in what
// they do about requests that come together.
//
//	rate               lets some come at once, then refills steadily: for clients
//	pace               lets one come at a time: for machines that choke on bursts
//	window             never more than N in any period: for a contract that says so
//	fixed_window       N in each period of the clock: cheap, easy to explain
//	quota              N per calendar day, month, …: for plans and bills
//	idle_reset         N, then silence: for an upstream that counts so
//	smooth_bursty,     Guava's RateLimiter: for those who move from it
//	smooth_warming_up
//
// # The token bucket: rate and pace
//
// Picture a bucket that holds burst tokens and gains one every interval of
// period/N. A request of cost n takes n tokens out, or is refused and takes
// none. In any time t it admits at most burst + t/interval, and no fewer
// whenever there are tokens.
//
// One need not count tokens to know how many there are. It is enough to keep the
// instant z at which the bucket was empty, because at the time now it then holds
// (now - z) / interval, if that is not more than it can hold. Taking n moves z
// by n intervals; if that would put z into the future, there are too few. This
// is the generic cell rate algorithm (GCRA, ITU-T I.371), and it is why a rate
// costs one word of memory and one compare-and-swap.
//
// A pace is a bucket that holds one token.
//
// # Counting in periods: fixed_window and quota
//
// Divide time into periods and count in each. That is a number and a count, in
// one word. Its flaw is well known: N at the end of one period and N at the
// beginning of the next are 2N in no time. A quota's periods are those of a
// calendar somewhere: its days have 23 or 25 hours when clocks change, its weeks
// begin on Monday, an hour that comes twice is two hours.
//
// # The exact window: window
//
// Write down when each request was taken. The next may be taken once the one N
// before it lies a period back. So there are never more than N in any window,
// wherever it starts. Above 128 requests the log is kept in chunks, which know
// when their last request was taken; at least 127 of 128 remain usable.
//
// # Silence: idle_reset
//
// Some servers count requests and clear the count only when they have heard
// nothing for a while, so that a steady trickle is refused in the end, however
// slow. Admit N, then nothing until the silence is complete.
//
// # Guava's two: smooth_bursty and smooth_warming_up
//
// In these, a request is admitted when those before it are paid for, and then
// makes the next wait for its own cost. Idleness stores permits, up to a
// second's worth: free ones for a bursty limiter; dear ones for a warming
// limiter, which is cold after a pause and admits a third of its rate at first.
// They decide as Guava does, to the last bit, also where one would wish
// otherwise: a new bursty limiter has stored nothing and so refuses the second of
// two requests that come at once. Only a change of limit is not Guava's: old debt
// is dropped.
//
// # Warm-up
//
// A new client that is held to its rate from the first instant is refused though
// it has done nothing wrong: it starts with several requests at once, or the
// bucket is small. A rate may therefore open gently ([WarmUp]): in the grace after
// the first request nothing is limited, up to GraceLimit requests if that is set.
// Over the ramp that follows, the allowed rate falls linearly to the limit's, from
//
//	r0 = max(requests in the grace / grace, 2 * limit)
//
// The bucket has one request at the ramp's beginning, saves up one and 20 ms'
// worth at most, and has one at most at the ramp's end. From then on it is a plain
// bucket. The grace comes once: a changed limit, [Limiter.Reset] and a restart begin no
// second one, only idleness for longer than WarmUp.Idle does.
//
// # Several limits at once
//
// [TakeAll] takes from several limiters for one request, or from none. It looks
// at all of them first, then takes one after the other, and gives back what it
// has taken should another request have been faster. For that moment a limiter
// knows that something of it is only held, and whoever would be refused by it
// looks again once it is decided: a request that gets nothing leaves no trace in
// what others are answered. A limit in shadow takes and counts but refuses nobody.
//
// # Change
//
// [Limiter.SetSpec] changes a limit under load, from any kind to any other. Once it
// returns, no decision is made by the old limit. What was used stays used: if half
// of the old limit was, half of the new one is, rounded against the client. After a
// raise the next request waits at most one interval of the new rate. How it is done without
// a lock: the bucket of the old limit is sealed by a bit in its state, which makes
// every swap of it fail, and whoever meets a sealed bucket makes the next one from
// what is left in it and goes on there.
//
// # Time
//
// Decisions take the time as a parameter ([Time]), so that tests need not sleep
// and a request is decided at one instant throughout. Goroutines read the clock at
// slightly different moments. A limiter that is given a time a little before one
// it has seen, up to a second, takes the clock to stand still until it has caught
// up: nothing is refilled and nothing is lost. A step back of more than a second
// means that the clock was set, unless it was that of one goroutine alone, which was
// stopped between the clock and the limiter, by a busy machine or with its container:
// so time stands still until it is sure, for a tenth of a second. The limiter then
// goes on from there with nothing saved up, which is neither a gift nor a standstill
// for as long as the step. What the time that is now to come again had used is forgotten.
//
// # Waiting
//
// [Decision] says exactly, to the nanosecond, how long to wait until the same
// request is admitted if no other comes. [Queue] holds requests until then, first
// come first served.
//
// # Memory and speed
//
// A limiter of kind rate, pace, fixed_window, quota or idle_reset has 64 bytes,
// its bucket in them; a window has 16 bytes more for each of its requests up to
// 128. [Slab] keeps many, and [Table] many by key, bounded in number, without a
// pointer in any: a collector that must look at a million of them costs more than
// all decisions made meanwhile. Decisions take no lock, and allocate nothing but
// where a limit changes and where a quota's period ends. Nobody who is admitted waits for anybody; of those who are
// refused only one who meets a [TakeAll] in the middle, for as long as that takes.
//
// # Other algorithms
//
// An [Algorithm] is a pure function of a state and an instant. Give it a name in
// [Kinds] and compile limits with it; it is then as atomic, as changeable and as
// durable as the built-in ones. Test it with package limitstest.
package limits
