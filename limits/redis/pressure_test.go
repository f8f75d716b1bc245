package redis

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/pressure"
	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

// upstream is one upstream as an instance knows it.
type upstream struct {
	*Pressure

	mu     sync.Mutex // guards what follows
	gate   *pressure.Gate
	report pressure.Report
	heard  pressure.Heard
	times  int // that something was heard
}

func (u *upstream) Reports(now limits.Time) []pressure.Report {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.gate.Phase(now)
	r := u.report
	r.ID, r.Gate = "keeper", u.gate.State()
	return []pressure.Report{r}
}

func (u *upstream) Hear(now limits.Time, sent pressure.Report, h pressure.Heard) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.gate.Stamped(now, sent.Gate.Last, h.Own)
	if h.Gate.Last != 0 {
		u.gate.Merge(now, h.Gate)
	}
	u.heard = h
	u.times++
	if sent.Reset == u.report.Reset {
		u.report.Reset = 0
	}
}

// do is for a test that looks at u or changes it.
func (u *upstream) do(f func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f()
}

var pausing = pressure.Policy{Initial: 10 * time.Second, Max: time.Minute, Cap: time.Hour, Probe: 3 * time.Second}

// joinUpstream joins an instance that knows the upstream keeper.
func joinUpstream(t *testing.T, s *redistest.Server, o Options) (*Cluster, *upstream) {
	t.Helper()
	o.Addresses = []string{s.Addr}
	c := join(t, o)
	u := &upstream{Pressure: c.Pressure(), gate: pressure.NewGate(pausing, c.now())}
	u.report.Share.Value = 1
	u.Run(u)
	return c, u
}

// until waits for what an instance is to hear.
func (u *upstream) until(t *testing.T, what string, f func() bool) {
	t.Helper()
	eventually(t, 3*time.Second, func() (yes bool) { u.do(func() { yes = f() }); return yes }, func() string {
		u.mu.Lock()
		defer u.mu.Unlock()
		return what + ": " + u.gate.State().Reason + " " + string(u.gate.Phase(u.cluster.now()))
	})
}

// TestPausesAreShared: one instance is refused, the others hear of it, one that
// starts later too, and after a flush the store is reminded. What cannot be meant
// is told once by each, and what can be, but is too long, is cut.
func TestPausesAreShared(t *testing.T) {
	s := redistest.Start(t)
	var corrupt atomic.Int64
	o := Options{Clock: limits.NewClock(), Corrupt: func(string, error) { corrupt.Add(1) }}
	_, a := joinUpstream(t, s, o)
	_, b := joinUpstream(t, s, o)
	for i, text := range []string{
		"1 x 99 -1 nonsense", "2", "", "\xff", "2 0 0 0 0 0 0 0 0 0 0 - - - -", // a share of nothing
		"2 0 99999999999999 0 0 0 1000000 0 0 0 0 - - - -", // in the future
		"2 0 1 0 0 0 1000000 0 0 0 0 - - - a=1/1/7/9", "2 0 1 0 0 0 1000000 0 0 0 0 - - - x",
	} {
		s.CLI("set", "tollgate{upstreams}keeper", text)
		want := int64(2 * (i + 1))
		eventually(t, 3*time.Second, func() bool { return corrupt.Load() == want }, func() string { return "not told of " + text })
		s.CLI("del", "tollgate{upstreams}keeper")
		heard := 0
		b.do(func() { heard = b.times })
		b.until(t, "heard", func() bool { return b.times > heard+2 })
		a.do(func() { heard = a.times })
		a.until(t, "heard", func() bool { return a.times > heard+2 })
	}
	told := corrupt.Load()
	s.CLI("rpush", "tollgate{upstreams}keeper", "x")
	eventually(t, 3*time.Second, func() bool { return corrupt.Load() == told+2 }, func() string { return "not told of a list" })

	now := o.Clock.Now()
	a.do(func() { a.gate.Refused(now, 20*time.Minute, "status 403") })
	a.Tell()
	check := func(u *upstream) {
		t.Helper()
		u.until(t, "not frozen", func() bool { return u.gate.Phase(o.Clock.Now()) == pressure.Frozen })
		u.do(func() {
			st := u.gate.State()
			if off := st.Until.Sub(now.Add(20 * time.Minute)); off < -10*time.Second || off > 10*time.Second || st.Violations != 1 || st.Reason != "status 403" {
				t.Errorf("heard %+v, %v off", st, off)
			}
		})
	}
	check(b)
	t.Logf("heard after %v", o.Clock.Now().Sub(now))
	_, late := joinUpstream(t, s, o)
	check(late)
	s.CLI("flushall")
	_, later := joinUpstream(t, s, o)
	check(later) // the store was reminded

	s.CLI("set", "tollgate{upstreams}keeper", "2 0 9999999999999 9999999999999 9 0 1000000 0 0 0 0 - x - -")
	eventually(t, 3*time.Second, func() bool { return corrupt.Load() > told+2 }, func() string { return "a stamp in the year 2286 is believed" })
	at := time.Now().UnixMilli()
	s.CLI("set", "tollgate{upstreams}keeper", "2 0 "+itoa(int(at))+" "+itoa(int(at)+300*86400000)+" 9 0 1000000 0 0 0 0 - x - -")
	b.until(t, "not the longer pause", func() bool { return b.gate.Wait(o.Clock.Now()) > 59*time.Minute })
	b.do(func() {
		if w := b.gate.Wait(o.Clock.Now()); w > pausing.Cap {
			t.Errorf("a pause of %v, longer than an upstream may ask for", w)
		}
	})
}

// TestOneProbe: of all instances one may probe, until it has an answer, gives the
// right back, or is killed.
func TestOneProbe(t *testing.T) {
	s := redistest.Start(t)
	o := Options{Clock: limits.NewClock()}
	_, a := joinUpstream(t, s, o)
	_, b := joinUpstream(t, s, o)
	now := o.Clock.Now()
	a.do(func() { a.gate.Merge(now, pressure.State{Until: now.Add(time.Minute), Last: now, Violations: 1}) })
	claim := func(u *upstream, lasts time.Duration) pressure.Heard {
		t.Helper()
		h, err := u.Claim(context.Background(), u.Reports(o.Clock.Now())[0], lasts)
		if err != nil {
			t.Fatal(err)
		}
		u.Hear(o.Clock.Now(), u.Reports(o.Clock.Now())[0], h)
		return h
	}
	if claim(a, time.Minute).OwnProbe {
		t.Error("a probe during the pause")
	}
	b.until(t, "no pause", func() bool { return b.gate.Phase(o.Clock.Now()) == pressure.Frozen })

	o.Prefix = "short"
	c, again := joinUpstream(t, s, o)
	a = again
	_, b = joinUpstream(t, s, o)
	now = o.Clock.Now()
	a.do(func() {
		a.gate.Merge(now, pressure.State{Until: now.Add(300 * time.Millisecond), Last: now, Violations: 1})
	})
	b.until(t, "no pause, or no end of it", func() bool { return b.gate.Phase(o.Clock.Now()) == pressure.Probing })
	eventually(t, time.Second, func() bool { return claim(a, time.Hour).OwnProbe }, func() string { return "no probe after the pause" })
	if h := claim(b, time.Hour); h.OwnProbe || h.Probe.Sub(o.Clock.Now()) < 50*time.Minute {
		t.Errorf("a second probe beside the first: %+v", h)
	}
	claim(a, -1)
	if !claim(b, time.Hour).OwnProbe {
		t.Error("no probe though it was given back")
	}
	if claim(a, time.Hour).OwnProbe {
		t.Error("a second probe")
	}
	claim(b, -1)
	if !claim(b, 300*time.Millisecond).OwnProbe {
		t.Error("no probe though it was given back once more")
	}
	eventually(t, 3*time.Second, func() bool { return claim(a, time.Hour).OwnProbe }, func() string { return "no probe after one that was never answered" })
	a.do(func() { a.gate.Pass(o.Clock.Now()); a.gate.Taken(o.Clock.Now()) })
	a.Tell()
	b.until(t, "does not hear that the upstream took a request", func() bool { return b.gate.Phase(o.Clock.Now()) != pressure.Probing })
	if claim(b, time.Minute).OwnProbe {
		t.Error("a probe after the upstream has taken one")
	}
	if n := c.Stats().Errors; n != 0 {
		t.Errorf("%d errors", n)
	}
}

// TestAnEndByHandIsForAll: it undoes the pause on all instances, but not one that
// begins later, though the one who is told of it late reports the old one.
func TestAnEndByHandIsForAll(t *testing.T) {
	s := redistest.Start(t)
	o := Options{Clock: limits.NewClock()}
	_, a := joinUpstream(t, s, o)
	_, b := joinUpstream(t, s, o)
	a.do(func() { a.gate.Refused(o.Clock.Now(), time.Minute, "429") })
	b.until(t, "no pause", func() bool { return b.gate.Phase(o.Clock.Now()) == pressure.Frozen })
	var old pressure.Report
	b.do(func() {
		old = pressure.Report{ID: "keeper", Gate: b.gate.State(), Share: pressure.SavedShare{Value: 1}}
	})
	time.Sleep(5 * time.Millisecond) // Redis tells milliseconds apart
	a.do(func() { a.gate.Reset(o.Clock.Now()); a.report.Reset = o.Clock.Now() })
	a.Tell()
	var stamp int64
	b.until(t, "not told", func() bool { stamp = b.gate.State().Stamp; return stamp != 0 && b.heard.Reset >= stamp })
	h, err := b.Claim(context.Background(), old, 0)
	if err != nil || h.Own != 0 || h.Gate.Last != 0 {
		t.Errorf("the old pause is believed again: %+v, %v", h, err)
	}
	b.do(func() { b.gate.Reset(o.Clock.Now()); b.gate.Refused(o.Clock.Now(), 30*time.Second, "again") })
	b.Tell()
	a.until(t, "no later pause", func() bool { return a.gate.Phase(o.Clock.Now()) == pressure.Frozen })
}

// TestWhatWasLearnedIsShared: a share that went down counts for all, and one that
// comes back only from where all stand; what was taken is added up.
func TestWhatWasLearnedIsShared(t *testing.T) {
	s := redistest.Start(t)
	o := Options{Clock: limits.NewClock()}
	_, a := joinUpstream(t, s, o)
	_, b := joinUpstream(t, s, o)
	a.do(func() {
		a.report.Share, a.report.ShareNew = pressure.SavedShare{Value: 0.6, Times: 1, Changed: o.Clock.Now()}, true
		a.report.Seen, a.report.SeenLong = pressure.Seen{Long: 30, Short: 3, Whole: true}, int64(10*time.Second)
	})
	b.until(t, "not learned", func() bool { return b.heard.Share.Value == 0.6 && b.heard.Others.Long == 30 })
	a.until(t, "not acknowledged", func() bool { return a.heard.ShareStamp != 0 })
	a.do(func() { a.report.ShareNew, a.report.ShareStamp = false, a.heard.ShareStamp })
	b.do(func() { // from where nobody stands any more
		b.report.Share, b.report.ShareNew, b.report.ShareStamp = pressure.SavedShare{Value: 0.9, Times: 1, Changed: o.Clock.Now()}, true, 5
	})
	heard := 0
	b.do(func() { heard = b.times })
	b.until(t, "silence", func() bool { return b.times > heard+2 })
	b.do(func() {
		if b.heard.Share.Value != 0.6 {
			t.Errorf("a share of %v, though it was raised from another", b.heard.Share.Value)
		}
		b.report.Share.Value, b.report.ShareStamp = 0.61, b.heard.ShareStamp
	})
	a.until(t, "not raised", func() bool { return a.heard.Share.Value == 0.61 })
	s.CLI("flushall")
	a.until(t, "not reminded", func() bool { return a.heard.Share.Value < 1 && a.heard.ShareStamp != 0 })
}

// TestAPauseDoesNotGrowByBeingTold: instances tell each other of one pause many
// times. It gets longer when it is heard first, by as long as that takes, and no more.
// For nobody it is shorter.
func TestAPauseDoesNotGrowByBeingTold(t *testing.T) {
	s := redistest.Start(t)
	o := Options{Clock: limits.NewClock()}
	_, a := joinUpstream(t, s, o)
	_, b := joinUpstream(t, s, o)
	now := o.Clock.Now()
	a.do(func() { a.gate.Refused(now, 20*time.Minute, "status 403") })
	ends := map[*upstream]map[limits.Time]bool{a: {}, b: {}}
	for range 20 {
		for _, u := range []*upstream{a, b} {
			heard := 0
			u.do(func() { heard = u.times })
			u.Tell()
			u.until(t, "silence", func() bool { return u.times > heard })
			u.do(func() {
				if at := u.gate.State().Until; at != 0 {
					ends[u][at] = true
				}
			})
		}
	}
	for u, all := range ends {
		if len(all) == 0 || len(all) > 3 {
			t.Errorf("%d ends of one pause were heard", len(all))
		}
		for at := range all {
			if at < now.Add(20*time.Minute) {
				t.Errorf("%v: it ends %v too early", u.cluster.id, now.Add(20*time.Minute).Sub(at))
			}
		}
	}
}

// TestALateCallTellsNothing: Redis carries out, once it goes on, what was told long
// before. That must not undo what was told since.
func TestALateCallTellsNothing(t *testing.T) {
	s := redistest.Start(t)
	clock := newFake()
	c, d := byHand(t, Options{Addresses: []string{s.Addr}, fake: clock.now}), join(t, Options{Addresses: []string{s.Addr}})
	tell := func(c *Cluster, p *Pressure, r pressure.Report) pressure.Heard {
		t.Helper()
		h, err := p.read(c.now(), &r, c.run(t.Context(), []call{p.call(c.now(), &r, 0)})[0])
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	early, other := c.Pressure(), d.Pressure()
	quiet := pressure.Report{ID: "keeper", Share: pressure.SavedShare{Value: 1}}
	tell(c, early, quiet)
	ended := quiet
	ended.Reset = clock.now()
	late := early.call(clock.now(), &ended, 0) // is on its way
	paused := quiet
	paused.Gate = pressure.State{Last: d.now(), Until: d.now().Add(time.Hour), Violations: 1}
	tell(d, other, paused)
	late.args[len(late.args)-1] = num(early.heard.redis - 1) // and takes longer than it may
	if a := c.run(t.Context(), []call{late})[0]; !isLate(a.err) {
		t.Errorf("%v, want it to be too late", a.err)
	}
	if h := tell(c, early, quiet); h.Gate.Violations != 1 {
		t.Errorf("%+v: a late call has ended the pause", h)
	}

	clock.advance(-time.Hour) // as if the next call were of an hour ago
	if h, err := early.Claim(t.Context(), quiet, 0); err != nil || h.Gate.Violations != 1 {
		t.Errorf("%+v, %v after the clock was set back", h, err)
	}
	if st := c.Stats(); st.Errors+st.Corrupt > 0 {
		t.Errorf("%+v", st)
	}
}
