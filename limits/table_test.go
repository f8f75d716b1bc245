package limits_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

const t0 = limits.Time(1_700_000_000_000_000_000)

func compile(t testing.TB, l limits.Limit) *limits.Spec {
	t.Helper()
	s, err := limits.Compile(l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tokens(t testing.TB, n int64, period time.Duration, burst int64) *limits.Spec {
	t.Helper()
	return compile(t, limits.Limit{Kind: limits.Rate, N: n, Period: period, Burst: burst})
}

func TestTableFindsKeys(t *testing.T) {
	s := tokens(t, 1, time.Second, 1)
	tab := limits.NewTable(limits.TableOptions{})
	key := []byte("user=1")
	l := tab.Limiter(t0, key, s)
	if !l.Take(t0, 1).Allowed || l.Take(t0, 1).Allowed {
		t.Fatal("a new limiter of burst 1 does not admit exactly one")
	}
	key[5] = '2' // the table must not have kept the caller's bytes
	if l2 := tab.Limiter(t0, key, s); l2 == l {
		t.Error("user=2 found the limiter of user=1")
	}
	if tab.LimiterString(t0, "user=1", s) != l {
		t.Error("user=1 did not find its limiter again")
	}
	if got := tab.Len(); got != 2 {
		t.Errorf("Len() = %d, want 2", got)
	}
	faster := tokens(t, 5, time.Second, 5)
	if got := tab.LimiterString(t0, "user=1", faster); got != l || got.Spec() != faster {
		t.Error("a changed spec was not set on the same limiter")
	}
}

// Keys come and go at random; a map is the model. Removing moves entries
// about, and none may get lost or return.
func TestTableAgainstMap(t *testing.T) {
	s := tokens(t, 1, time.Millisecond, 1)
	const idle = time.Minute
	tab := limits.NewTable(limits.TableOptions{Size: 1_000_000, Idle: idle})
	type known struct {
		limiter *limits.Limiter
		used    limits.Time
	}
	model := map[string]known{}
	rnd := rand.New(rand.NewPCG(1, 2))
	now := t0
	for i := range 200_000 {
		now = now.Add(time.Duration(rnd.Int64N(int64(4 * time.Millisecond))))
		key := strconv.Itoa(rnd.IntN(20_000))
		l := tab.LimiterString(now, key, s)
		if m, ok := model[key]; ok && (m.limiter == l) != (now.Sub(m.used) <= idle) {
			t.Fatalf("step %d: key %s, unused for %v: same limiter: %v", i, key, now.Sub(m.used), m.limiter == l)
		}
		model[key] = known{l, now}
		if i%10_000 != 0 {
			continue
		}
		gone := 0
		for k, m := range model {
			if now.Sub(m.used) > idle {
				delete(model, k)
				gone++
			}
		}
		if got := tab.Expire(now); got != gone || tab.Len() != len(model) {
			t.Fatalf("step %d: Expire() = %d, Len() = %d, want %d and %d", i, got, tab.Len(), gone, len(model))
		}
	}
}

func TestTableHitDoesNotAllocate(t *testing.T) {
	s := tokens(t, 1, time.Second, 1)
	tab := limits.NewTable(limits.TableOptions{})
	key := []byte("a key of which a copy would be seen")
	tab.Limiter(t0, key, s)
	now := t0
	if n := testing.AllocsPerRun(1000, func() {
		now = now.Add(time.Millisecond)
		tab.Limiter(now, key, s)
		tab.LimiterString(now, "another such key", s)
	}); n != 0 {
		t.Errorf("finding a key allocates %v times", n)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A million random keys cost no more memory than the table's size allows.
func TestTableMemory(t *testing.T) {
	s := tokens(t, 1, time.Minute, 5)
	const keyLen = 24
	size, more := 50_000, 900_000
	if testing.Short() {
		size, more = 20_000, 40_000
	}
	before := heap()
	tab := limits.NewTable(limits.TableOptions{Size: size})
	rnd := rand.New(rand.NewPCG(3, 4))
	key := make([]byte, keyLen)
	now := t0
	fill := func(n int) {
		for range n {
			for i := 0; i < keyLen; i += 8 {
				copy(key[i:], strconv.FormatUint(rnd.Uint64()|1<<63, 16))
			}
			now = now.Add(time.Microsecond)
			tab.Limiter(now, key, s).Take(now, 1)
			if tab.Len() > size {
				t.Fatalf("%d limiters live, want at most %d", tab.Len(), size)
			}
		}
	}
	fill(2 * size)
	full := heap() - before
	fill(more)
	flat := heap() - before
	if perKey := float64(flat) / float64(size); perKey > 256 {
		t.Errorf("%.0f bytes per limiter with a key of %d, want at most 256", perKey, keyLen)
	}
	if flat > full+full/20 {
		t.Errorf("%d bytes after %d keys, %d after %d more", full, 2*size, flat, more)
	}
	if got, want := tab.Evictions(), uint64(size+more); got != want {
		t.Errorf("Evictions() = %d, want %d", got, want)
	}
	t.Logf("%.0f bytes per limiter, its key of %d included", float64(flat)/float64(size), keyLen)
	runtime.KeepAlive(tab)
}

// Ten times as many keys as the table holds, some of them greedy. Whatever the
// table forgets, it admits nothing that a limiter would not have admitted that
// was there all the time.
func TestTableChurnGivesNothingBack(t *testing.T) {
	warm := limits.WarmUp{Grace: time.Second, Ramp: time.Second}
	for _, l := range []limits.Limit{
		{Kind: limits.Rate, N: 2, Period: time.Second, Burst: 10},
		{Kind: limits.Rate, N: 2, Period: time.Second, Burst: 10, WarmUp: warm, Name: "warming"},
		{Kind: limits.Pace, N: 2, Period: time.Second},
		{Kind: limits.Window, N: 10, Period: 5 * time.Second},
		{Kind: limits.FixedWindow, N: 10, Period: 5 * time.Second},
		{Kind: limits.Quota, N: 100, Calendar: limits.Minute},
		{Kind: limits.IdleReset, N: 10, Period: 5 * time.Second},
		{Kind: limits.SmoothBursty, N: 2, Period: time.Second},
	} {
		s := compile(t, l)
		for _, size := range []int{1, 10, 1000} {
			t.Run(fmt.Sprintf("%s/%d", s.Limit().Name, size), func(t *testing.T) {
				churn(t, s, size)
			})
		}
	}
}

func churn(t *testing.T, s *limits.Spec, size int) {
	steps := 50_000
	if testing.Short() {
		steps = 10_000
	}
	tab := limits.NewTable(limits.TableOptions{Size: size})
	rnd := rand.New(rand.NewPCG(5, uint64(size)))
	stayed := make(map[int]*limits.Limiter)
	now, admitted := t0, 0
	for i := range steps {
		now = now.Add(time.Duration(rnd.Int64N(int64(time.Second) / int64(5*size))))
		k := rnd.IntN(10 * size)
		if rnd.IntN(3) == 0 {
			k %= 1 + size/2 // the greedy
		}
		// The one that stayed counts what was admitted, and nothing else.
		if stayed[k] == nil {
			stayed[k] = limits.Restore(s, now, limits.State{}) // full, and past its warm-up
		}
		if !tab.LimiterString(now, strconv.Itoa(k), s).Take(now, 1).Allowed {
			continue
		}
		admitted++
		if !stayed[k].Take(now, 1).Allowed {
			t.Fatalf("step %d: key %d was admitted, which it would not have been had it stayed", i, k)
		}
	}
	if tab.Len() > size || tab.Evictions() == 0 || admitted == 0 {
		t.Errorf("%d live of %d, %d evictions, %d admitted", tab.Len(), size, tab.Evictions(), admitted)
	}
}

// An exhausted key stays exhausted whatever comes; those who come get what
// they would have got, as long as there is something cheaper to forget.
func TestTableFloodDoesNotResetAnExhaustedKey(t *testing.T) {
	size, flood := 10_000, 500_000
	if testing.Short() {
		size, flood = 1000, 20_000
	}
	for _, kind := range []limits.Kind{limits.Rate, limits.FixedWindow, limits.Quota} {
		t.Run(string(kind), func(t *testing.T) {
			l := limits.Limit{Kind: kind, N: 20, Period: time.Hour}
			switch kind {
			case limits.Rate:
				l.Burst = 20
			case limits.Quota:
				l.Period, l.Calendar = 0, limits.Hour
			}
			s := compile(t, l)
			tab := limits.NewTable(limits.TableOptions{Size: size})
			now := t0 - t0%limits.Time(time.Hour)
			take := func(key string) bool {
				return tab.LimiterString(now, key, s).Take(now, 1).Allowed
			}
			for take("greedy") {
			}
			refused := 0
			for i := range flood {
				now = now.Add(time.Microsecond)
				if !take(fmt.Sprintf("guess-%d", i)) {
					refused++
				}
				if i%1000 == 0 && take("greedy") {
					t.Fatalf("the exhausted key was admitted after %d others", i)
				}
			}
			t.Logf("%d of %d new keys refused", refused, flood)
			if tab.Len() > size {
				t.Errorf("Len() = %d", tab.Len())
			}
		})
	}
}

func TestTableForgetsFullOnesForNothing(t *testing.T) {
	s := tokens(t, 10, time.Second, 10)
	tab := limits.NewTable(limits.TableOptions{Size: 100})
	now := t0
	for i := range 1000 {
		now = now.Add(100 * time.Millisecond) // after which one taken is back
		l := tab.LimiterString(now, strconv.Itoa(i), s)
		if d := l.Peek(now, 10); !d.Allowed {
			t.Fatalf("key %d starts with less than its burst: %+v", i, d)
		}
		l.Take(now, 1)
	}
	if got := tab.Evictions(); got != 900 {
		t.Errorf("Evictions() = %d, want 900", got)
	}
}

func TestTableFloorEnds(t *testing.T) {
	s := tokens(t, 1, time.Second, 5)
	tab := limits.NewTable(limits.TableOptions{Size: 1})
	exhaust := func(now limits.Time, key string) (n int) {
		for tab.LimiterString(now, key, s).Take(now, 1).Allowed {
			n++
		}
		return n
	}
	for _, step := range []struct {
		after time.Duration
		key   string
		want  int
	}{
		{0, "a", 5},
		{0, "b", 0},                     // a was forgotten, and a could return under any name
		{2 * time.Second, "c", 2},       // what a would have by now
		{2 * time.Second, "a", 0},       // c was forgotten after a
		{5 * time.Second, "d", 3},       // a again, exhausted at 2 s
		{time.Minute, "e", 5},           // all would be full
		{time.Minute, "f", 0},           // but for e
		{2 * time.Minute, "unknown", 5}, // a floor does not outlast its cause
	} {
		if got := exhaust(t0.Add(step.after), step.key); got != step.want {
			t.Errorf("after %v, %s gets %d, want %d", step.after, step.key, got, step.want)
		}
	}
}

// A reload compiles limits anew, and may change them. Neither gives back what
// forgotten keys had used.
func TestTableFloorOutlivesReload(t *testing.T) {
	tab := limits.NewTable(limits.TableOptions{Size: 1})
	s := tokens(t, 1, time.Minute, 4)
	for tab.LimiterString(t0, "a", s).Take(t0, 1).Allowed {
	}
	tab.LimiterString(t0, "b", s) // a is forgotten
	if tab.LimiterString(t0, "a", tokens(t, 1, time.Minute, 4)).Take(t0, 1).Allowed {
		t.Error("a got its burst back by a reload")
	}
	changed := tokens(t, 2, time.Minute, 4)
	tab.LimiterString(t0, "a", changed) // here the table learns of the change
	if tab.LimiterString(t0, "c", changed).Take(t0, 1).Allowed {
		t.Error("c may be a key that was forgotten, and got its burst back by a changed limit")
	}
}

// What was forgotten of one group counts against no other, unless there are more
// groups under pressure than a table can tell apart.
func TestTableFloorsOfGroups(t *testing.T) {
	tab := limits.NewTable(limits.TableOptions{Size: 1})
	s := tokens(t, 1, time.Minute, 4)
	exhaust := func(group, key string) {
		for tab.LimiterString(t0, key, s.Grouped(group)).Take(t0, 1).Allowed {
		}
	}
	admits := func(group, key string) bool { return tab.LimiterString(t0, key, s.Grouped(group)).Peek(t0, 1).Allowed }
	exhaust("one", "a")
	if !admits("two", "b") { // a is forgotten
		t.Error("a new key of another group is refused its burst")
	}
	if admits("one", "a") || admits("one", "c") {
		t.Error("a forgotten key, or one that may be it, got its burst back")
	}
	for i := range 300 {
		exhaust(fmt.Sprint("group ", i), fmt.Sprint("key ", i))
	}
	tab.LimiterString(t0, "last", s.Grouped("two"))
	for i := range 300 {
		if admits(fmt.Sprint("group ", i), fmt.Sprint("key ", i)) {
			t.Fatalf("group %d of 300 under pressure got its burst back", i)
		}
	}
}

func TestTableExpire(t *testing.T) {
	hourly := tokens(t, 1, time.Hour, 100)
	quick := tokens(t, 10, time.Second, 10)
	tab := limits.NewTable(limits.TableOptions{Size: 100, Idle: time.Minute})
	full := tab.LimiterString(t0, "full again", quick)
	full.Take(t0, 5)
	used := tab.LimiterString(t0, "still used", hourly)
	used.Take(t0, 5)
	if n := tab.Expire(t0.Add(time.Minute)); n != 0 {
		t.Errorf("Expire() = %d before the time", n)
	}
	later := t0.Add(time.Minute + time.Millisecond)
	if n := tab.Expire(later); n != 1 || tab.Len() != 1 {
		t.Errorf("Expire() = %d, Len() = %d, want 1 and 1", n, tab.Len())
	}
	if tab.LimiterString(later, "still used", hourly) != used {
		t.Error("a limiter that was not full was forgotten for being idle")
	}
	if tab.LimiterString(later, "full again", quick) == full {
		t.Error("an idle limiter came back")
	}
	// A key that returns before anybody called Expire starts anew all the same.
	l := tab.LimiterString(later, "lazy", quick)
	l.Take(later, 1)
	if tab.LimiterString(later.Add(2*time.Minute), "lazy", quick) == l {
		t.Error("an idle limiter was not replaced on return")
	}
	if tab.Evictions() != 0 {
		t.Errorf("Evictions() = %d: nothing was under pressure", tab.Evictions())
	}
}

// What Used tells of is enough for another process to go on, and costs what was
// used.
func TestTableRecall(t *testing.T) {
	s := tokens(t, 1, time.Hour, 10)
	tab := limits.NewTable(limits.TableOptions{})
	tab.LimiterString(t0, "early", s).Take(t0, 1)
	now := t0.Add(time.Second)
	for i := range 100 {
		tab.LimiterString(now, strconv.Itoa(i), s).Take(now, int64(1+i%10))
	}
	states := map[limits.KeyHash]limits.Recalled{limits.HashKey("over"): {Until: now}}
	note := func(name limits.KeyHash, l *limits.Limiter) {
		states[name] = limits.Recalled{State: l.State(), Until: now.Add(l.Peek(now, 1).Reset)}
	}
	tab.Used(now, 30, note)
	if n := len(states); n < 30 || n > 95 {
		t.Errorf("%d limiters told at once, want about 30", n)
	}
	tab.Used(now, 1000, note)
	if _, ok := states[limits.HashKey("early")]; len(states) != 102 || !ok {
		t.Fatalf("%d limiters to recall, want 102 with that of early", len(states))
	}
	clear(states)
	states[limits.HashKey("over")] = limits.Recalled{Until: now}
	tab.Used(now, 1000, note)
	if _, ok := states[limits.HashKey("early")]; len(states) != 101 || ok {
		t.Fatalf("%d limiters that were just looked up are told again, want 101 without early", len(states))
	}
	now = now.Add(time.Second)
	tab.Used(now, 1000, note)
	tab.Used(now, 1000, func(limits.KeyHash, *limits.Limiter) { t.Error("a limiter is told that was not used since") })
	other := limits.NewTable(limits.TableOptions{Size: 100})
	other.Recall(states)
	left := func(key string) int64 { return other.LimiterString(now, key, s).Peek(now, 1).Remaining }
	for i := range 100 {
		if got, want := left(strconv.Itoa(i)), int64(10-(1+i%10)); got != want {
			t.Errorf("key %d: %d remain after the restart, want %d", i, got, want)
		}
	}
	late := now.Add(24 * time.Hour)
	other.Recall(map[limits.KeyHash]limits.Recalled{limits.HashKey("x"): {State: limits.New(s, now).State(), Until: late}})
	other.Expire(late)
	if got := other.LimiterString(late, "over", s).Peek(late, 1).Remaining; got != 10 {
		t.Errorf("%d remain of what is over, want 10", got)
	}
}

// Many look up the same keys while others come and go.
func TestTableConcurrent(t *testing.T) {
	s := tokens(t, 1, time.Hour, 10)
	tab := limits.NewTable(limits.TableOptions{Size: 2000})
	clock := limits.NewClock()
	steps := 50_000
	if testing.Short() {
		steps = 5_000
	}
	var wg sync.WaitGroup
	admitted := make([]int, 4)
	for g := range admitted {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(7, uint64(g)))
			for range steps {
				now := clock.Now()
				if tab.LimiterString(now, "shared", s).Take(now, 1).Allowed {
					admitted[g]++
				}
				tab.LimiterString(now, strconv.Itoa(rnd.IntN(20_000)), s).Take(now, 1)
				if rnd.IntN(steps/5) == 0 {
					tab.Expire(now)
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range admitted {
		total += n
	}
	if total != 10 {
		t.Errorf("a key with a burst of 10 was admitted %d times", total)
	}
	if tab.Len() > 2000 {
		t.Errorf("Len() = %d, want at most 2000", tab.Len())
	}
}
