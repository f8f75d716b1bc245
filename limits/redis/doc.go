// Package redis shares limits over many instances, through Redis or Valkey.
//
//	c, err := redis.Open(ctx, redis.Options{Addresses: []string{"127.0.0.1:6379"}, Clock: clock})
//	l := limits.New(spec, clock.Now())
//	c.Share(clock.Now(), "billing", "prod", l)  // before anybody uses it
//	refused, err := c.TakeAll(ctx, nil, clock.Now(), []limits.Claim{{Limiter: l, N: 1}})
//
// # One key for one limiter
//
// A shared limiter is one string in Redis, PREFIX{GROUP}KEY, whose group is the
// consumer's id, or a hash of the descriptor. It reads
//
//	2 RESETS EPOCH WRITES SPEC A B C LOG BASES HOLDERS
//
// EPOCH is when it was begun, BASES from what. SPEC says what limit the rest was counted under; a script that is called with
// another one carries over what was used, in proportion, as
// [limits.Limiter.SetSpec] does. A, B and C are those of [limits.State], LOG is
// when requests of a window came, HOLDERS who has how much in hand. A key lives
// until its limiter is as good as new; with a warm-up, for the idle period more,
// since the grace comes once. In PREFIX{instances} every instance leaves its name
// once a second; after five seconds without it counts as gone.
//
// The mathematics are in Lua, once for both modes (scripts, a file for each kind). Time is
// Redis' own: instances' clocks may differ. What Lua cannot know, when the days
// of a calendar somewhere begin, a call brings along for three periods; if Redis'
// clock lies in none of them the script says what time it is, and is called again.
//
// # Strict
//
// One call decides about all limits of a request, and takes all or none. On a
// Redis Cluster one call can only be about keys of one slot. All limits of a
// consumer are in one; where a request has limits in several slots, their calls
// go out together, and what was taken is given back if another slot refuses.
//
// A call that is given up, since Redis is silent for longer than Options.Timeout, may
// be carried out all the same once Redis goes on. What it took is not given back, though
// OnError has decided about the request: where that let it pass, the request counts
// twice. A call has no number by which to tell, as reports have below.
//
// # Leased
//
// An instance takes requests in hand before it needs them and decides from there
// ([limits.Lease]), as fast as about a limit of its own. Three rules make that
// exact:
//
//   - What is in hand is still in the bucket. Redis grants what the bucket holds
//     less what all instances have in hand, so that whatever they do with it, and
//     at once, they cannot exceed what the limit would admit at that moment. Only
//     when an instance reports what it used is it taken out, as of the moment when
//     the last was used; of a window in much use, as of the end of each 10 ms in
//     which some was, from four a second on. What comes back of a window after that is told with its instant,
//     and struck from what was used then or before.
//   - What a request waits for counts as used when it is granted, and what is not
//     taken within 10 ms comes back.
//   - A lease lasts 3 s here and 6 s in Redis. Who is killed, stopped or has its
//     clock set loses what it has in hand; Redis takes it for used then.
//
// The exchange is safe to repeat: an instance reports, and Redis keeps, how much
// was granted, used and returned since the session began, and used without Redis,
// never a difference; and reports are numbered. So it does no harm that one is
// lost, or its answer, or that Redis reads it late or after the next. Of limits
// that count in periods Redis knows who had something in hand for a minute longer
// than the lease, and puts right what it has taken for used.
//
// How much: what is used in three tenths of a second, or a second's worth up to
// 200 requests, of a large limit three up to 300; at most a quarter of what the limit
// holds and half of what is left of it, so that nobody takes all; of what counts in
// periods no more than half of what would be used until the period ends. A big request
// gets all it asks for or nothing. Where so little is left that only the request
// that waits gets something, the limit is decided about in Redis, but for what
// Redis has answered: that nothing is to be had before some instant. Until then
// everybody is refused without asking, and who comes in vain asks again no sooner
// than 0.4 s later, and where there are many instances 2 s later at the most, where
// the bucket cannot overflow meanwhile. An exchange is due
// when a quarter of the chunk is left, or what would be used until an answer is
// overdue; 1.5 s after the last while something is in hand and in use; and what lay
// there unused for half a second is returned, as is everything
// at the end ([Cluster.Close]).
//
// A window in much use, sliding or fixed, of 16 s at most is kept: what was used
// comes back to who used it a period later, or with the next period, and nobody is
// told in between. To Redis it is in hand all the time, as if it were used at any
// instant. An instance has what was wanted of it in the last period and little more.
// It takes more once for 300 decisions, after 2 s at the latest, and sooner while it
// gains some; it gives back what it has used no more for 0.2 s. In much use is a window
// of 200 and more, 50 a second and more, or of 20 and more if half of those who come
// are refused. Who is killed takes what it kept along for 6 s and a period. Where all
// instances refuse much, who was first keeps most.
//
// During the grace of a warm-up nothing is counted but reported; it begins and
// ends for all instances together, and the ramp that follows is one for all.
//
// # When Redis is away
//
// Every call is bounded by Options.Timeout. The first one that fails opens the
// breaker (on a cluster there is one for each 256 slots): from then on no
// decision waits. In leased mode who waits gives up after a quarter of it already,
// and no later one waits until an answer has come. Nobody waits at all under a
// context of [limits.WithoutWaiting]. Limits decide as their OnError says: local, from a share of the
// limit, divided by the instances last seen, that begins with a share of what was
// last left; allow; or deny, which makes the decision Undecided. Each 200 ms one
// call finds out whether Redis can be written to. When it can, what was admitted
// meanwhile is reported, by everybody and even if nobody asks for that limit again;
// for 0.7 s more a limit that is local stays so, and no chunk is taken, since others
// are still to report. So no burst follows, and of a quota nothing is let through
// twice: all together is what was used, known to Redis or not, and each instance's
// share of what it last heard was left. What cannot be known: an instance that alone
// has lost Redis spends its share while the others go on with all that is left.
//
// A store that was flushed is reminded. With each call goes what this instance last
// heard of the limiter; a key that is lost begins anew from that, which is its base,
// and what others know beyond the base is added, once. What others had in hand, as far
// as it had heard, is lent to nobody until they tell of it, or for 3 s: so long at most
// they use it without a word, of a window that is kept too. A store with older data, of a
// replica that never heard or from a disk, has older entries of who uses the limit:
// what was reported since is reported again, and counts once. What only those knew
// who are gone is lost. Where data and an answer are lost at a time, the report may
// count twice.
//
// # Upstreams
//
// [Cluster.Pressure] shares what is known of upstreams that throttle. Their limits
// are leased as others are, in strict mode for one request at a time; a budget is a
// bucket that never ends, of which each class leaves in reserve what it may not
// use. Pause, probe, working limit, ends by hand and what the upstream took are one
// string, PREFIX{upstreams}ID, which every instance reads and, where it knows
// something else, writes each 50 ms (scripts/pressure.lua). It tells all it knows
// each time, so that nothing is lost that Redis forgets. The violation, the working
// limit and the end by hand bear stamps of Redis' clock, by which the newer is told
// from the older. All else that it tells of instants is how long ago they were: a pause is
// longer elsewhere by as long as the call takes, once, and a call that Redis makes a second
// after it was given up is void. A value that cannot be meant is told once and counts as none; a
// pause is never longer than the upstream may ask for.
//
// # What it costs, and gives
//
// A simulation of 100 instances and 1000000 keys of 10/s each, with half of 100000
// decisions a second about ten of them, has 0 requests admitted beyond a limit, and
// 100 % of what the limits allow admitted, 99.7 % of the ten. It makes 0.89 calls per
// decision, for most keys are asked for once or twice, and 0.023 about the ten, of each
// of which an instance makes 50 decisions a second where a tenth of one is admitted. It
// takes three minutes or four and 3 GB:
//
//	go test ./limits/redis -run Simulation -v -timeout 60m -args -sim-keys 1000000 -sim-rate 500
//
// Calls for 100 decisions about one key, of which three instances make 80, 10 and
// 10 %, and what of the limit can be used (TestCallsOfAHotKey, fake time):
//
//	limit                 decisions/s   calls   usable
//	rate 10000/s                 3000    0.26    100 %
//	rate 10000/s                  500    0.60    100 %
//	rate 10000/s                  200    1.05    100 %
//	rate 2000/s                  1500    0.41    100 %
//	rate 1000/s                  1000    0.60    100 %
//	rate 200/s                   2000    0.75   99.2 %
//	rate 200/s                    200    3.10    100 %
//	rate 5/s                     1000    0.79    100 %
//	rate 1000/s, burst 100       1000    8.10   99.8 %
//	quota, far off                500    0.60    100 %
//	fixed window 2000/s          1500    0.19    100 %
//	fixed window 1000/s          1000    0.18   97.0 %
//	fixed window 1000/s          3000    0.27    100 %
//	fixed window 100/s           2000    0.40    100 %
//	window 100000/m              1000    0.39    100 %
//	window 2000/s                1000    0.15    100 %
//	window 1000/s                 800    0.57    100 %
//	window 1000/s                1000    0.24   95.4 %
//	window 200/s                  200    1.55   92.2 %
//	window 1000/s                2000    0.31    100 %
//	window 1000/s                5000    0.32    100 %
//	window 100/s                 2000    0.46    100 %
//	pace 200/s                    600    42.5   99.6 %
//	pace 200/s                   4000    13.6   99.8 %
//
// One call for 100 decisions is more than can be had where an instance makes fewer
// than a hundred while its lease lasts, or while the limit lets through what it may
// have in hand: so with less than about 300 decisions a second on three instances;
// with a bucket of B requests, of which instances use U1, U2 and so on a second, since
// what is in hand is in the bucket: together they call (√U1 + √U2 + …)² / B times a
// second at least; and with a pace, of which nobody may have more than one in hand.
// A limit of few, as 5/s, costs a call for each that is admitted and one for each time
// it is found used up: all of it is usable. A sliding window of which just all is wanted is
// used to 92 to 97 %, from 200/s on; a smaller one to 97 % and more, at a call each.
//
// At a 90/10 split and several times the limit, each kind is used to 95 % at least,
// a pace to 90 %, 5/s over three instances to 100 % (TestLeasedStaysWithinTheLimit).
// Taking turns in one run on two busy cores, the medians of a decision are 87 ns
// alone, 92 ns leased (1.05 times as much), 81 µs strict; leased allocates nothing:
//
//	go test ./limits/redis -run '^$' -bench SideBySide -benchtime 200x
//
// # What it is not
//
// A request whose limits lie in different slots of a cluster may, for a moment, hold in
// one what another then refuses. Leases make a limit of few requests, and a pace, as dear
// as strict does, and an idle_reset always: each request that it admits is a call, since a
// silence is one of all instances, and nothing of it is ever taken in hand.
// Guava's two kinds are not shared.
//
// # Who may do what
//
// A value that cannot be meant is an error of that one limit, which then decides
// as its OnError says; it opens no door and stops nobody else. The user needs
//
//	ACL SETUSER tollgate on >SECRET ~tollgate{* -@all +ping
//	    +cluster|slots +cluster|shards +evalsha +eval +get +set +time
//	    +zadd +zrem +zremrangebyscore +zcard +pexpire
//
// with another key prefix than tollgate in ~tollgate{*, and from Redis 6.2 on
// resetchannels, since nothing is published; +cluster|shards is not known to Redis 6
// and asked for by newer servers only. That these do, and that each of the others is
// needed, is tested (TestEveryPermissionIsNeeded).
//
// # What it was run on
//
// The tests of this package, and those of upstreams that need a store, pass on Redis
// 6.0.16, 7.0.15 and 8.0.2 and on Valkey 8.1.1, as Debian packages them: REDIS_SERVER, REDIS_CLI and REDIS_SENTINEL name the
// programs that they start.
package redis
