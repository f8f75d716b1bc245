package redis

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/limitstest"
	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

var onErrors = []limits.OnError{limits.OnErrorLocal, limits.OnErrorAllow, limits.OnErrorDeny}

// TestFaults is the matrix: what happens to Redis by how a limit goes on without
// it, in both modes. Each of three limits is 50/s for two instances; one takes
// from it all the time, ever at several times the limit.
func TestFaults(t *testing.T) {
	for _, mode := range []Mode{Leased, Strict} {
		for _, f := range redistest.Faults() {
			t.Run(fmt.Sprintf("%s/%s", mode, f.Name), func(t *testing.T) {
				t.Parallel()
				s := redistest.Start(t)
				testFault(t, mode, f, s, Options{Addresses: []string{s.Addr}})
			})
		}
		t.Run(fmt.Sprintf("%s/fails over", mode), func(t *testing.T) {
			t.Parallel()
			master, replica, sentinel := startSentinel(t, time.Minute) // which does nothing by itself
			f := redistest.Fault{Name: "fails over", Breaks: true, Begin: (*redistest.Server).Kill, End: func(*redistest.Server) {
				eventually(t, 20*time.Second, func() bool {
					sentinel.CLI("sentinel", "failover", "mine") // it may not be ready for that
					return strings.Contains(replica.CLI("role"), "master")
				}, sentinel.Log)
			}}
			testFault(t, mode, f, master, Options{Addresses: []string{sentinel.Addr}, SentinelMaster: "mine"})
		})
	}
}

// testFault has the fault happen to s, on which instances with the options o are.
func testFault(t *testing.T, mode Mode, f redistest.Fault, s *redistest.Server, o Options) {
	var changes atomic.Int64
	timeout := time.Minute // far beyond what a busy machine takes
	if f.Name == "stalls" {
		timeout = 3 * time.Second
	}
	o.Mode, o.Timeout = mode, timeout
	join(t, o)
	o.Instances, o.Changed = 2, func(error) { changes.Add(1) }
	c := join(t, o)
	eventually(t, 5*time.Second, func() bool { return c.instances() == 2 }, func() string { return "the other instance is not seen" })
	var ls []*limits.Limiter
	for _, onError := range onErrors {
		ls = append(ls, c.limiter(compile(t, limits.Limit{Kind: limits.Rate, N: 50, Period: time.Second, Burst: 10, OnError: onError}), "g", string(onError)))
	}
	use := func(d time.Duration, rate int64) []used { return useUp(t, c, ls, d, rate) }
	const whole, half = 50, 25
	use(250*time.Millisecond, whole) // the buckets are empty now
	f.Begin(s)
	share := int64(whole)
	if f.Breaks {
		share = half
		eventually(t, 5*time.Second, func() bool {
			use(20*time.Millisecond, half)
			return !c.Stats().Up
		}, func() string { return "it is not found out" })
	}
	waited := c.Stats().Waits
	meanwhile := use(500*time.Millisecond, share)
	if waited = c.Stats().Waits - waited; f.Breaks && waited > 0 {
		t.Errorf("%d decisions waited for Redis though it was known to be away", waited)
	}
	f.End(s)
	began := time.Now()
	back := use(400*time.Millisecond, whole)
	settled(t, c)
	after := use(500*time.Millisecond, whole)
	most := 10 + 50*time.Since(began).Seconds()
	if n := changes.Load(); f.Breaks && n != 2 || !f.Breaks && n != 0 {
		t.Errorf("%d changes of state were told", n)
	}
	for i, onError := range onErrors {
		t.Run(string(onError), func(t *testing.T) {
			judge(t, f, onError, meanwhile[i])
			if onError == limits.OnErrorLocal && float64(back[i].admitted+after[i].admitted) > most*1.01 {
				t.Errorf("%+v and %+v after Redis came back, want at most %.0f: a burst", back[i], after[i], most)
			}
			u, most := after[i], 10+1.01*whole*after[i].took.Seconds()
			if float64(u.admitted) < 0.4*float64(u.possible) || float64(u.admitted) > most || u.undecided > 0 {
				t.Errorf("%+v once it was back, want about what is possible", u)
			}
		})
	}
}

// settled waits until c uses Redis again, for all that it decides about.
func settled(t *testing.T, c *Cluster) {
	t.Helper()
	eventually(t, 10*time.Second, func() bool {
		for i := range c.links {
			if k := &c.links[i]; k.down.Load() || int64(c.now()) < k.settles.Load() {
				return false
			}
		}
		return true
	}, func() string { return "Redis is back and not used" })
}

// judge checks what was decided during the fault.
func judge(t *testing.T, f redistest.Fault, onError limits.OnError, u used) {
	share := 50 * u.took.Seconds()
	if f.Breaks {
		share /= 2
	}
	switch {
	case !f.Breaks || onError == limits.OnErrorLocal:
		if float64(u.admitted) > 10+share || float64(u.admitted) < 0.5*float64(u.possible) || u.undecided > 0 {
			t.Errorf("%+v while Redis %s, want about what is possible", u, f.Name)
		}
	case onError == limits.OnErrorAllow && u.admitted != u.tries:
		t.Errorf("%+v, want all admitted", u)
	case onError == limits.OnErrorDeny && u.undecided != u.tries:
		t.Errorf("%+v, want none decided", u)
	}
}

// used is what came of taking one after the other.
type used struct {
	tries, admitted, undecided int
	possible                   int // to admit, of these tries, under a limit whose bucket was empty
	took                       time.Duration
}

// useUp takes from every limiter in turn, as fast as it can. rate is that of
// each, a second.
func useUp(t *testing.T, c *Cluster, ls []*limits.Limiter, d time.Duration, rate int64) []used {
	us := make([]used, len(ls))
	began := time.Now()
	alone := limitstest.NewModel(limits.Limit{Kind: limits.Rate, N: rate, Period: time.Second, Burst: rate / 5})
	alone.Take(c.now(), rate/5)
	for ; time.Since(began) < d; time.Sleep(500 * time.Microsecond) {
		possible := alone.Take(c.now(), 1)
		for i, l := range ls {
			u := &us[i]
			answer := c.take(l, 1)
			u.tries++
			if possible {
				u.possible++
			}
			switch {
			case answer.Pending:
				t.Fatal("a decision was left pending")
			case answer.Allowed:
				u.admitted++
			case answer.Undecided:
				u.undecided++
			}
		}
	}
	for i := range us {
		us[i].took = time.Since(began)
	}
	return us
}

// TestAValueThatCannotBeMeant puts all sorts of things into the key of a limit.
// It is an error of this limit, which its share then stands in for; another
// limit of the same request and of the same Redis is decided about as ever.
func TestAValueThatCannotBeMeant(t *testing.T) {
	s := redistest.Start(t)
	for _, mode := range []Mode{Leased, Strict} {
		var reported atomic.Int64
		c := join(t, Options{Addresses: []string{s.Addr}, Mode: mode, OnError: limits.OnErrorDeny, Prefix: "bad/" + string(mode),
			Corrupt: func(string, error) { reported.Add(1) }})
		healthy := c.limiter(compile(t, limits.Limit{Kind: limits.Rate, N: 1000, Period: time.Second}), "g", "healthy")
		for i, value := range []string{
			"", "x", "1 0 0 g:1:1:0:0:0:0 - warm 0 - -", "2 0 0 1 q:1:1 - 0 0 - - -", "2 0 0 1 g:0:0:0:0:0:0 - warm 0 - - -", "2 0 0 1 g:1 - warm 0 - - -",
			"2 0 0 1 w:5:1000000000 - nan 0 - - -", "2 0 0 1 w:5:1000000000 - 1e999 0 - - -", "2 0 0 1 w:5:1000000000 - 0 0 x/1 - -", "2 0 0 1 w:5:1000000000 - 0 0 - - a=b",
			"2 0 0 1 w:5:1000000000 - 0 0 - - a=1/2/3/4/5/6", "2 0 0 1 w:5:1000000000 - 0 0 - x -", "2 0 0 1 w:5:1000000000 - 0 0 - w/1/1/1/1 -", "2 0 0 1 w:5:1000000000 - 0 0 - w/1/1/1.0/-1 -",
			"2 0 0 1 w:5:1000000000 1.1 99999999999999999999999999 0 - - -", "2 0 0 1 w:5:1000000000 - -5 0 - - -", strings.Repeat("2 ", 10_000),
			"2 0 0 1 w:5:1000000000 99999999999999999999.1 0 0 - - -", "\xff\xfe",
		} {
			key := itoa(i)
			l := c.limiter(compile(t, limits.Limit{Kind: limits.Window, N: 5, Period: time.Second}), "g", key)
			s.CLI("set", limitOf(l).key, value)
			if d := c.take(l, 1); d.Allowed || !d.Undecided {
				t.Errorf("%s: %q: %+v, want undecided", mode, value, d)
			}
			claims := []limits.Claim{{Limiter: healthy, N: 1}, {Limiter: l, N: 1, Shadow: true}}
			if refused, err := c.TakeAll(t.Context(), nil, c.now(), claims); refused >= 0 || err != nil || !claims[0].Decision.Allowed {
				t.Errorf("%s: %q: a limit beside it is refused: %d, %v, %+v", mode, value, refused, err, claims)
			}
		}
		l := c.limiter(compile(t, limits.Limit{Kind: limits.Window, N: 5, Period: time.Second}), "g", "list")
		s.CLI("rpush", limitOf(l).key, "1")
		s.CLI("set", c.o.Prefix+"{instances}", "1")
		c.beat(t.Context(), false)
		if d := c.take(l, 1); d.Allowed || !d.Undecided {
			t.Errorf("%s: a list: %+v", mode, d)
		}
		if !c.Stats().Up || c.Stats().Corrupt == 0 || reported.Load() != 1 {
			t.Errorf("%s: %+v, %d reports, want one", mode, c.Stats(), reported.Load())
		}
	}
}

// TestAHolderThatIsGone kills an instance that has much in hand: nobody else
// gets that before its lease is over, and then no more than the limit has.
func TestAHolderThatIsGone(t *testing.T) {
	s := redistest.Start(t)
	clock := newFake()
	o := Options{Addresses: []string{s.Addr}, fake: clock.now}
	spec := compile(t, limits.Limit{Kind: limits.Quota, N: 100, Calendar: limits.Day})
	c, d := join(t, o), join(t, o)
	a, b := c.limiter(spec, "g", "k"), d.limiter(spec, "g", "k")
	total := 0
	for range 40 {
		clock.advance(20 * time.Millisecond)
		if c.take(a, 1).Allowed {
			total++
		}
	}
	c.stop()
	c.running.Wait()
	held := limitOf(a).lease.Left()
	if held == 0 {
		t.Fatal("the first instance holds nothing: the test tests nothing")
	}
	for range 100 {
		clock.advance(100 * time.Millisecond)
		if d.take(b, 1).Allowed {
			total++
		}
	}
	if want := 100 - int(held); total != want {
		t.Errorf("%d of 100 were admitted, with %d lost in an instance that is gone: want %d", total, held, want)
	}
	if got := a.Take(clock.now(), 1); got.Allowed {
		t.Error("who comes back after its lease was over uses it")
	}
}

// farFromItsEnd returns a period such that no window of it, which begin at
// multiples of it, ends within a few minutes of now.
func farFromItsEnd(now limits.Time) time.Duration {
	for period := 10 * time.Minute; ; period += time.Minute {
		if in := int64(now) % int64(period); in > int64(2*time.Minute) && in < int64(period-2*time.Minute) {
			return period
		}
	}
}

// TestAClockThatJumps sets the clock of one of two instances by an hour, both ways.
func TestAClockThatJumps(t *testing.T) {
	s := redistest.Start(t)
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		var shift atomic.Int64
		real := limits.NewClock()
		c := join(t, Options{Addresses: []string{s.Addr}, Clock: real, Prefix: "jump" + jump.String()})
		d := join(t, Options{Addresses: []string{s.Addr}, Clock: real, Prefix: "jump" + jump.String()})
		spec := compile(t, limits.Limit{Kind: limits.Rate, N: 100, Period: time.Second, Burst: 20})
		a, b := c.limiter(spec, "g", "k"), d.limiter(spec, "g", "k")
		quota := compile(t, limits.Limit{Kind: limits.FixedWindow, N: 7, Period: farFromItsEnd(real.Now())})
		qa, qb := c.limiter(quota, "g", "q"), d.limiter(quota, "g", "q")
		takeAt := func(c *Cluster, l *limits.Limiter, by time.Duration) bool {
			claims := []limits.Claim{{Limiter: l, N: 1}}
			_, _ = c.TakeAll(t.Context(), nil, real.Now().Add(by), claims)
			return claims[0].Decision.Allowed
		}
		alone := limitstest.NewModel(spec.Limit())
		began := time.Now()
		admitted, possible, counted := 0, 0, 0
		for time.Since(began) < 1500*time.Millisecond {
			if time.Since(began) > 500*time.Millisecond {
				shift.Store(int64(jump))
			}
			for _, took := range []bool{takeAt(c, a, time.Duration(shift.Load())), takeAt(d, b, 0)} {
				if took {
					admitted++
				}
				if alone.Take(real.Now(), 1) {
					possible++
				}
			}
			if takeAt(c, qa, time.Duration(shift.Load())) {
				counted++
			}
			if takeAt(d, qb, 0) {
				counted++
			}
			time.Sleep(time.Millisecond)
		}
		if most := 20 + 100*time.Since(began).Seconds(); float64(admitted) > most*1.01+1 || float64(admitted) < 0.7*float64(possible) {
			t.Errorf("jump of %v: %d admitted, want at most %.0f and about %d", jump, admitted, most, possible)
		}
		if counted != 7 {
			t.Errorf("jump of %v: %d of 7 in a window", jump, counted)
		}
	}
}
