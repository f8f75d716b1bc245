package limits_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/limits"
)

// queueing is what the tests of a queue need: a clock, a queue, limiters, and
// a log of who got through and when.
type queueing struct {
	*testing.T
	clock *limits.Clock
	queue *limits.Queue
	start time.Time
	wg    sync.WaitGroup

	mu  sync.Mutex
	log []string
}

// inBubble runs f with a queue in a bubble where time moves by itself once all
// goroutines wait.
func inBubble(t *testing.T, o limits.QueueOptions, f func(*queueing)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		q := &queueing{T: t, clock: limits.NewClock(), start: time.Now()}
		q.queue = limits.NewQueue(q.clock, o)
		f(q)
		q.wg.Wait()
		if n := q.queue.Waiting(); n != 0 {
			t.Errorf("Waiting() = %d at the end", n)
		}
		q.queue.Close()
	})
}

// limiter returns one whose n per second come singly: a burst of 1.
func (q *queueing) limiter(n int64, maxWait time.Duration) *limits.Limiter {
	q.Helper()
	return limits.New(q.spec(n, 1, maxWait), q.clock.Now())
}

func (q *queueing) spec(n, burst int64, maxWait time.Duration) *limits.Spec {
	q.Helper()
	return compile(q, limits.Limit{Kind: limits.Rate, N: n, Period: time.Second, Burst: burst, MaxWait: maxWait})
}

// send lets a caller ask for one of each limiter and returns once it has its
// answer or waits.
func (q *queueing) send(ctx context.Context, name string, ls ...*limits.Limiter) {
	claims := make([]limits.Claim, len(ls))
	for i, l := range ls {
		claims[i] = limits.Claim{Limiter: l, N: 1}
	}
	q.sendClaims(ctx, name, claims...)
}

func (q *queueing) sendClaims(ctx context.Context, name string, claims ...limits.Claim) {
	q.wg.Go(func() {
		i, err := q.queue.TakeAll(ctx, claims)
		what := "admitted"
		switch {
		case err != nil:
			what = "gone"
			if !errors.Is(err, ctx.Err()) {
				q.Errorf("%s: error %v, want that of the context", name, err)
			}
		case i >= 0:
			what = fmt.Sprintf("refused by %d for %v", i, claims[i].Decision.Wait)
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		q.log = append(q.log, fmt.Sprintf("%v %s %s", time.Since(q.start), name, what))
	})
	synctest.Wait()
}

func (q *queueing) want(want ...string) {
	q.Helper()
	q.wg.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	if diff := cmp.Diff(want, q.log); diff != "" {
		q.Errorf("answers (-want +got):\n%s", diff)
	}
}

func TestQueueFirstComeFirstServed(t *testing.T) {
	inBubble(t, limits.QueueOptions{}, func(q *queueing) {
		l := q.limiter(10, 250*time.Millisecond)
		for _, name := range []string{"a", "b", "c", "d"} {
			q.send(q.Context(), name, l)
		}
		if got := l.Waiting(); got != 2 {
			t.Errorf("Waiting() = %d, want 2", got)
		}
		time.Sleep(150 * time.Millisecond)
		q.send(q.Context(), "e", l)
		q.want(
			"0s a admitted",
			"0s d refused by 0 for 300ms", // its turn lies beyond what it may wait
			"100ms b admitted",
			"200ms c admitted",
			"300ms e admitted",
		)
		if got, want := l.Usage(), (limits.Usage{Admitted: 4, Refused: 1}); got != want {
			t.Errorf("Usage() = %+v, want %+v", got, want)
		}
	})
}

// Those who come later do not overtake, even where there is enough for them
// and not yet for the first.
func TestQueueNobodyOvertakes(t *testing.T) {
	inBubble(t, limits.QueueOptions{}, func(q *queueing) {
		l := limits.New(q.spec(10, 5, time.Minute), q.clock.Now())
		l.Take(q.clock.Now(), 3)
		q.sendClaims(q.Context(), "big", limits.Claim{Limiter: l, N: 5})
		q.send(q.Context(), "small", l)
		q.want("300ms big admitted", "400ms small admitted")
	})
}

func TestQueueDeadline(t *testing.T) {
	inBubble(t, limits.QueueOptions{}, func(q *queueing) {
		l := q.limiter(10, time.Minute)
		q.send(q.Context(), "a", l)
		ctx, cancel := context.WithTimeout(q.Context(), 150*time.Millisecond)
		defer cancel()
		q.send(ctx, "b", l)
		q.send(ctx, "c", l)
		q.want("0s a admitted", "0s c refused by 0 for 200ms", "100ms b admitted")
	})
}

func TestQueueCancelGivesTheTurnToTheNext(t *testing.T) {
	for _, who := range []int{0, 1, 2} {
		t.Run(strconv.Itoa(who), func(t *testing.T) {
			inBubble(t, limits.QueueOptions{}, func(q *queueing) {
				l := q.limiter(10, time.Minute)
				q.send(q.Context(), "x", l)
				want := []string{"0s x admitted"}
				var cancel context.CancelFunc
				for i := range 3 {
					ctx := q.Context()
					if i == who {
						ctx, cancel = context.WithCancel(ctx)
					}
					q.send(ctx, strconv.Itoa(i), l)
				}
				time.Sleep(50 * time.Millisecond)
				cancel()
				want = append(want, fmt.Sprintf("50ms %d gone", who))
				for i, at := 0, 100; i < 3; i++ {
					if i != who {
						want = append(want, fmt.Sprintf("%dms %d admitted", at, i))
						at += 100
					}
				}
				q.want(want...)
				if got := l.Usage().Admitted; got != 3 {
					t.Errorf("%d admitted, want 3", got)
				}
			})
		})
	}
}

func TestQueueSeveralLimits(t *testing.T) {
	inBubble(t, limits.QueueOptions{}, func(q *queueing) {
		fast, slow := q.limiter(10, time.Minute), q.limiter(2, time.Minute)
		q.send(q.Context(), "a", fast, slow)
		q.send(q.Context(), "b", fast, slow) // waits for slow
		time.Sleep(150 * time.Millisecond)
		q.send(q.Context(), "c", fast)       // b does not wait for fast
		q.send(q.Context(), "d", fast, slow) // behind b
		time.Sleep(340 * time.Millisecond)   // fast is taken just before slow is there
		q.send(q.Context(), "e", fast)
		q.want(
			"0s a admitted",
			"150ms c admitted",
			"490ms e admitted",
			"590ms b admitted", // moved on to fast
			"1.09s d admitted",
		)
	})
}

// One that moves on to another line stands before all who came later.
func TestQueueKeepsArrivalOrderAcrossLines(t *testing.T) {
	inBubble(t, limits.QueueOptions{}, func(q *queueing) {
		one, two := q.limiter(10, time.Minute), q.limiter(10, time.Minute)
		q.send(q.Context(), "a", one)
		q.send(q.Context(), "both", one, two) // waits for one until 100 ms
		time.Sleep(90 * time.Millisecond)
		q.send(q.Context(), "b", two)
		q.send(q.Context(), "c", two) // waits for two until 190 ms
		q.send(q.Context(), "d", two)
		q.want(
			"0s a admitted",
			"90ms b admitted",
			"190ms both admitted",
			"290ms c admitted",
			"390ms d admitted",
		)
	})
}

func TestQueueRefusesAtOnce(t *testing.T) {
	t.Run("a limit that does not wait", func(t *testing.T) {
		inBubble(t, limits.QueueOptions{}, func(q *queueing) {
			patient, strict := q.limiter(1, time.Minute), q.limiter(2, 0)
			q.send(q.Context(), "a", patient, strict)
			q.send(q.Context(), "b", patient, strict)
			q.send(q.Context(), "c", strict)
			q.want("0s a admitted", "0s b refused by 0 for 1s", "0s c refused by 0 for 500ms")
		})
	})
	t.Run("what can never be", func(t *testing.T) {
		inBubble(t, limits.QueueOptions{}, func(q *queueing) {
			l := q.limiter(1, time.Minute)
			q.sendClaims(q.Context(), "a", limits.Claim{Limiter: l, N: 2})
			q.want(fmt.Sprintf("0s a refused by 0 for %v", limits.Never))
		})
	})
	t.Run("when the line is full", func(t *testing.T) {
		inBubble(t, limits.QueueOptions{PerLimiter: 1, Total: 2}, func(q *queueing) {
			one, two, three := q.limiter(10, time.Minute), q.limiter(10, time.Minute), q.limiter(10, time.Minute)
			for _, l := range []*limits.Limiter{one, two, three} {
				l.Take(q.clock.Now(), 1)
			}
			q.send(q.Context(), "a", one)
			q.send(q.Context(), "b", one) // one is full
			q.send(q.Context(), "c", two)
			q.send(q.Context(), "d", three) // the queue is full
			if got := q.queue.Waiting(); got != 2 {
				t.Errorf("Waiting() = %d, want 2", got)
			}
			q.wg.Wait()
			slices.Sort(q.log)
			q.want(
				"0s b refused by 0 for 200ms",
				"0s d refused by 0 for 100ms",
				"100ms a admitted",
				"100ms c admitted",
			)
		})
	})
}

func TestQueueShadowNeverHolds(t *testing.T) {
	inBubble(t, limits.QueueOptions{}, func(q *queueing) {
		l := q.limiter(10, time.Minute)
		shadow := compile(t, limits.Limit{Kind: limits.Rate, N: 1, Period: time.Second, MaxWait: time.Minute, Shadow: true})
		s := limits.New(shadow, q.clock.Now())
		q.send(q.Context(), "a", l, s)
		q.send(q.Context(), "b", s)
		q.send(q.Context(), "c", l, s)
		q.sendClaims(q.Context(), "d", limits.Claim{Limiter: l, N: 1, Shadow: true})
		q.want("0s a admitted", "0s b admitted", "0s d admitted", "100ms c admitted")
	})
}

func TestQueueRetimes(t *testing.T) {
	tests := []struct {
		name   string
		change func(*queueing, *limits.Limiter)
		want   []string
	}{
		{"a higher limit", func(q *queueing, l *limits.Limiter) {
			l.SetSpec(q.clock.Now(), q.spec(100, 1, time.Minute))
		}, []string{"0s a admitted", "505ms b admitted", "515ms c admitted"}},
		{"a lower limit", func(q *queueing, l *limits.Limiter) {
			l.SetSpec(q.clock.Now(), compile(q, limits.Limit{Kind: limits.Rate, N: 1, Period: 40 * time.Second, Burst: 1, MaxWait: time.Minute}))
		}, []string{"0s a admitted", "500ms c refused by 0 for 1m0s", "20.5s b admitted"}},
		{"a shorter wait", func(q *queueing, l *limits.Limiter) {
			l.SetSpec(q.clock.Now(), q.spec(1, 1, 1500*time.Millisecond))
		}, []string{"0s a admitted", "500ms c refused by 0 for 1.5s", "1s b admitted"}},
		{"a reset", func(q *queueing, l *limits.Limiter) {
			l.Reset(q.clock.Now())
		}, []string{"0s a admitted", "500ms b admitted", "1.5s c admitted"}},
		{"a refund", func(q *queueing, l *limits.Limiter) {
			l.Refund(q.clock.Now(), 1)
		}, []string{"0s a admitted", "500ms b admitted", "1.5s c admitted"}},
		{"the end of the limiter", func(q *queueing, l *limits.Limiter) {
			l.Close()
		}, []string{"0s a admitted", fmt.Sprintf("500ms b refused by 0 for %v", limits.Never), fmt.Sprintf("500ms c refused by 0 for %v", limits.Never)}},
		{"someone who does not queue", func(q *queueing, l *limits.Limiter) {
			time.Sleep(600 * time.Millisecond)
			for range 100 {
				l.Take(q.clock.Now(), 1)
			}
		}, []string{"0s a admitted", "1s b admitted", "2s c admitted"}},
		{"the end of the queue", func(q *queueing, l *limits.Limiter) {
			q.queue.Close()
		}, []string{"0s a admitted", "500ms b refused by 0 for 1s", "500ms c refused by 0 for 2s"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, limits.QueueOptions{}, func(q *queueing) {
				l := q.limiter(1, time.Minute)
				q.send(q.Context(), "a", l)
				q.send(q.Context(), "b", l)
				q.send(q.Context(), "c", l)
				time.Sleep(500 * time.Millisecond)
				tt.change(q, l)
				q.wg.Wait()
				// Two who are told in the same moment may write in any order.
				slices.SortStableFunc(q.log, func(a, b string) int {
					if d := answerTime(a) - answerTime(b); d != 0 {
						return int(d)
					}
					return strings.Compare(a, b)
				})
				q.want(tt.want...)
			})
		})
	}
}

func TestQueueClosed(t *testing.T) {
	inBubble(t, limits.QueueOptions{}, func(q *queueing) {
		l := q.limiter(1, time.Minute)
		q.queue.Close()
		q.send(q.Context(), "a", l)
		q.send(q.Context(), "b", l)
		q.want("0s a admitted", "0s b refused by 0 for 1s")
		q.queue.Close()
	})
}

func TestLimiterWait(t *testing.T) {
	inBubble(t, limits.QueueOptions{}, func(q *queueing) {
		l := limits.New(q.spec(1, 5, 0), q.clock.Now()) // no MaxWait: the caller says how long
		if d, err := l.Wait(q.Context(), q.queue, 5); err != nil || !d.Allowed {
			t.Errorf("the burst: %+v, %v", d, err)
		}
		if d, err := l.Wait(q.Context(), q.queue, 3); err != nil || !d.Allowed || time.Since(q.start) != 3*time.Second {
			t.Errorf("after %v: %+v, %v; want 3 s", time.Since(q.start), d, err)
		}
		ctx, cancel := context.WithTimeout(q.Context(), 3*time.Second)
		defer cancel()
		if d, err := l.Wait(ctx, q.queue, 4); err != nil || d.Allowed || d.Wait != 4*time.Second || time.Since(q.start) != 3*time.Second {
			t.Errorf("a deadline too early: after %v, %+v, %v; want a refusal at once", time.Since(q.start), d, err)
		}
		if d, err := l.Wait(q.Context(), q.queue, 6); err != nil || d.Allowed || d.Wait != limits.Never {
			t.Errorf("more than it holds: %+v, %v", d, err)
		}
		gone, leave := context.WithCancel(q.Context())
		time.AfterFunc(time.Second, leave)
		if d, err := l.Wait(gone, q.queue, 5); !errors.Is(err, context.Canceled) || d.Allowed {
			t.Errorf("a caller who left: %+v, %v", d, err)
		}
	})
}

// Random requests against the plainest model of a queue: each one's turn comes
// when those before it on the same limiter had theirs and there is enough.
func TestQueueAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			inBubble(t, limits.QueueOptions{}, func(q *queueing) {
				rnd := rand.New(rand.NewPCG(seed, 9))
				const maxWait = 2 * time.Second
				type key struct {
					limiter *limits.Limiter
					full    time.Duration // when the bucket is full again
					last    time.Duration // the last turn
				}
				keys := make([]key, 3)
				for i := range keys {
					keys[i].limiter = limits.New(q.spec(10, 5, maxWait), q.clock.Now())
				}
				const interval = 100 * time.Millisecond
				var want []string
				for i := range 200 {
					time.Sleep(time.Duration(rnd.Int64N(int64(70 * time.Millisecond))))
					now := time.Since(q.start)
					k, n := &keys[rnd.IntN(len(keys))], 1+rnd.Int64N(5)
					full := max(k.full, now, k.last) + time.Duration(n)*interval
					turn := max(now, k.last, full-5*interval)
					name := fmt.Sprintf("%d/%d", i, n)
					if turn-now > maxWait {
						want = append(want, fmt.Sprintf("%v %s refused by 0 for %v", now, name, turn-now))
					} else {
						k.full, k.last = max(k.full, turn)+time.Duration(n)*interval, turn
						want = append(want, fmt.Sprintf("%v %s admitted", turn, name))
					}
					q.sendClaims(q.Context(), name, limits.Claim{Limiter: k.limiter, N: n})
				}
				q.wg.Wait()
				slices.Sort(want)
				slices.Sort(q.log)
				q.want(want...)
			})
		})
	}
}

// Callers come and leave at random moments. Nothing is lost: what was admitted
// is what the limiters gave, and it is all they had to give.
func TestQueueCancellationUnderLoad(t *testing.T) {
	inBubble(t, limits.QueueOptions{}, func(q *queueing) {
		const perKey = 100
		ls := make([]*limits.Limiter, 50)
		for i := range ls {
			ls[i] = q.limiter(100, time.Minute)
		}
		rnd := rand.New(rand.NewPCG(11, 12))
		var mu sync.Mutex
		admitted, gone := 0, 0
		for range perKey * len(ls) {
			l, other := ls[rnd.IntN(len(ls))], ls[rnd.IntN(len(ls))]
			timeout := time.Hour
			if rnd.IntN(2) == 0 {
				// Often in the very moment of its turn.
				timeout = time.Duration(rnd.IntN(perKey)) * 10 * time.Millisecond
			}
			claims := []limits.Claim{{Limiter: l, N: 1}}
			if other != l && rnd.IntN(4) == 0 {
				claims = append(claims, limits.Claim{Limiter: other, N: 1})
			}
			q.wg.Go(func() {
				ctx, cancel := context.WithCancel(context.Background())
				timer := time.AfterFunc(timeout, cancel)
				defer timer.Stop()
				i, err := q.queue.TakeAll(ctx, claims)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err != nil:
					gone++
				case i < 0:
					admitted += len(claims)
				default:
					t.Errorf("refused: %+v", claims[i].Decision)
				}
			})
		}
		q.wg.Wait()
		if gone == 0 || admitted == 0 {
			t.Errorf("%d gone, %d admitted", gone, admitted)
		}
		var used int64
		for i, l := range ls {
			used += l.Usage().Admitted
			if l.Waiting() != 0 {
				t.Errorf("limiter %d: %d still wait", i, l.Waiting())
			}
		}
		if used != int64(admitted) {
			t.Errorf("the limiters gave %d, %d were admitted", used, admitted)
		}
	})
}

// Ten thousand who wait on a thousand keys: each key's are served in time,
// whatever the others do, and nothing but the callers runs.
func TestQueueManyWaiters(t *testing.T) {
	inBubble(t, limits.QueueOptions{}, func(q *queueing) {
		const keys, each = 1000, 10
		var mu sync.Mutex
		late := 0
		for k := range keys {
			l := q.limiter(int64(1+k%20), time.Minute)
			for range each {
				q.wg.Go(func() {
					claims := []limits.Claim{{Limiter: l, N: 1}}
					if i, err := q.queue.TakeAll(q.Context(), claims); i >= 0 || err != nil {
						t.Errorf("refused: %+v, %v", claims[0].Decision, err)
					}
				})
			}
			q.wg.Go(func() {
				// The last of them can be no later than this.
				time.Sleep(time.Second/time.Duration(1+k%20)*(each-1) + time.Microsecond)
				if l.Waiting() > 0 {
					mu.Lock()
					defer mu.Unlock()
					late++
				}
			})
		}
		synctest.Wait()
		if got, want := q.queue.Waiting(), keys*(each-1); got != want {
			t.Errorf("Waiting() = %d, want %d", got, want)
		}
		q.wg.Wait()
		if late > 0 {
			t.Errorf("%d keys were served late", late)
		}
	})
}

// A timer that comes late hands out all the turns that have come meanwhile, and
// pushes none of the later ones back.
func TestQueueCatchesUpAfterALateTimer(t *testing.T) {
	for _, kind := range []limits.Kind{limits.Pace, limits.Rate, limits.SmoothBursty} {
		t.Run(string(kind), func(t *testing.T) {
			inBubble(t, limits.QueueOptions{}, func(q *queueing) {
				const interval = 200 * time.Microsecond // 5000/s
				l := limits.New(compile(t, limits.Limit{Kind: kind, N: 5000, Period: time.Second, MaxWait: time.Minute}), q.clock.Now())
				for l.Take(q.clock.Now(), 1).Allowed {
				}
				const waiters = 100
				begin := q.clock.Now()
				var mu sync.Mutex
				var turns []time.Duration
				for range waiters {
					q.wg.Go(func() {
						if d, err := l.Wait(q.Context(), q.queue, 1); err != nil || !d.Allowed {
							t.Errorf("%+v, %v", d, err)
						}
						mu.Lock()
						defer mu.Unlock()
						turns = append(turns, q.clock.Now().Sub(begin))
					})
				}
				synctest.Wait()
				const late = 5 * time.Millisecond
				limits.DelayTimer(q.queue, late)
				q.wg.Wait()
				for i, at := range turns {
					turn := time.Duration(i+1) * interval
					if want := max(turn, late+interval); at != want {
						t.Fatalf("turn %d of %v was handed out at %v, want %v", i, turn, at, want)
					}
				}
			})
		})
	}
}

func TestTableKeepsWhomRequestsWaitFor(t *testing.T) {
	inBubble(t, limits.QueueOptions{}, func(q *queueing) {
		tab := limits.NewTable(limits.TableOptions{Size: 10, Idle: time.Second})
		s := q.spec(1, 1, time.Minute)
		l := tab.LimiterString(q.clock.Now(), "busy", s)
		for i := range 10 {
			q.send(q.Context(), strconv.Itoa(i), l)
		}
		time.Sleep(3 * time.Second)
		for i := range 100 {
			now := q.clock.Now()
			tab.LimiterString(now, strconv.Itoa(i), s).Take(now, 1)
		}
		if now := q.clock.Now(); tab.LimiterString(now, "busy", s) != l {
			t.Error("a limiter was forgotten that requests wait for")
		}
		if tab.Len() > 10 {
			t.Errorf("Len() = %d", tab.Len())
		}
	})
}

func TestQueueDoesNotAllocateWhenNobodyWaits(t *testing.T) {
	clock := limits.NewClock()
	q := limits.NewQueue(clock, limits.QueueOptions{})
	defer q.Close()
	spec := compile(t, limits.Limit{Kind: limits.Rate, N: 1_000_000, Period: time.Second, Burst: 1_000_000, MaxWait: time.Second})
	a, b := limits.New(spec, clock.Now()), limits.New(spec, clock.Now())
	strict := limits.New(compile(t, limits.Limit{Kind: limits.Rate, N: 1, Period: time.Hour, Burst: 1}), clock.Now())
	ctx := t.Context()
	if n := testing.AllocsPerRun(1000, func() {
		claims := [2]limits.Claim{{Limiter: a, N: 1}, {Limiter: b, N: 1}}
		q.TakeAll(ctx, claims[:])
		one := [1]limits.Claim{{Limiter: strict, N: 1}}
		q.TakeAll(ctx, one[:])
		a.Wait(ctx, q, 1)
	}); n != 0 {
		t.Errorf("a request that need not wait allocates %v times", n)
	}
}

func answerTime(s string) time.Duration {
	var at string
	fmt.Sscan(s, &at)
	d, _ := time.ParseDuration(at)
	return d
}

// One that must not wait is told so, and leaves nothing behind.
func TestQueueWithoutWaiting(t *testing.T) {
	inBubble(t, limits.QueueOptions{}, func(q *queueing) {
		l, ctx := q.limiter(10, 150*time.Millisecond), limits.WithoutWaiting(q.Context())
		take := func() (int, error) {
			return q.queue.TakeAll(ctx, []limits.Claim{{Limiter: l, N: 1}})
		}
		if i, err := take(); i >= 0 || err != nil {
			t.Errorf("the first = %d, %v, want admitted", i, err)
		}
		for range 3 {
			if _, err := take(); !errors.Is(err, limits.ErrWouldWait) {
				t.Errorf("one who would be held: %v, want ErrWouldWait", err)
			}
		}
		q.send(q.Context(), "b", l)
		if i, err := take(); i != 0 || err != nil {
			t.Errorf("one whose turn is beyond its max_wait = %d, %v, want refused at once", i, err)
		}
		q.want("100ms b admitted")
		if got, want := l.Usage(), (limits.Usage{Admitted: 2, Refused: 1}); got != want {
			t.Errorf("Usage() = %+v, want %+v", got, want)
		}
	})
}
