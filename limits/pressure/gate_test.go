package pressure_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/pressure"
)

const epoch = limits.Time(1_700_000_000_000_000_000)

func at(d time.Duration) limits.Time { return epoch.Add(d) }

var policy = pressure.Policy{Initial: 10 * time.Second, Factor: 2, Max: time.Minute, Cap: time.Hour, Ramp: 8 * time.Second, Probe: 5 * time.Second}

// TestSteps is the life of a gate, to be read by hand.
func TestSteps(t *testing.T) {
	g := pressure.NewGate(policy, epoch)
	const (
		pass    = "pass"
		refused = "refused"
		taken   = "taken"
		nothing = ""
	)
	for i, s := range []struct {
		at    time.Duration
		do    string
		asked time.Duration
		phase pressure.Phase
		wait  time.Duration
		count int
	}{
		{0, pass, 0, pressure.Open, 0, 0},
		{time.Second, refused, 0, pressure.Frozen, 10 * time.Second, 1},
		{2 * time.Second, refused, 0, pressure.Frozen, 10 * time.Second, 1},                // of the same traffic: until 12s
		{3 * time.Second, refused, time.Second, pressure.Frozen, 10 * time.Second, 1},      // until 13s
		{4 * time.Second, refused, 20 * time.Second, pressure.Frozen, 20 * time.Second, 1}, // until 24s
		{5 * time.Second, refused, 0, pressure.Frozen, 19 * time.Second, 1},                // not earlier
		{6 * time.Second, taken, 0, pressure.Frozen, 18 * time.Second, 1},
		{24*time.Second - 1, nothing, 0, pressure.Frozen, 1, 1},
		{24 * time.Second, nothing, 0, pressure.Probing, 0, 1},
		{24 * time.Second, taken, 0, pressure.Probing, 0, 1}, // late: there is no probe yet
		{25 * time.Second, pass, 0, pressure.Probing, 5 * time.Second, 1},
		{26 * time.Second, refused, 0, pressure.Frozen, 20 * time.Second, 2},
		{46 * time.Second, pass, 0, pressure.Probing, 5 * time.Second, 2},
		{47 * time.Second, taken, 0, pressure.Returning, 0, 2},
		{47 * time.Second, pass, 0, pressure.Returning, time.Second, 2}, // 2 may have passed after one of eight seconds
		{48 * time.Second, pass, 0, pressure.Returning, 584962501, 2},   // log2(3) seconds
		{50 * time.Second, refused, 0, pressure.Frozen, 40 * time.Second, 3},
		{90 * time.Second, pass, 0, pressure.Probing, 5 * time.Second, 3},
		{95 * time.Second, nothing, 0, pressure.Probing, 0, 3}, // the probe is lost
		{96 * time.Second, pass, 0, pressure.Probing, 5 * time.Second, 3},
		{101 * time.Second, nothing, 0, pressure.Returning, 0, 3}, // and the next
		{109 * time.Second, nothing, 0, pressure.Open, 0, 3},
		{110*time.Second - 1, nothing, 0, pressure.Open, 0, 3},
		{110 * time.Second, nothing, 0, pressure.Open, 0, 0}, // a minute since the last violation
		{120 * time.Second, refused, 2 * time.Hour, pressure.Frozen, time.Hour, 1},
	} {
		now := at(s.at)
		switch s.do {
		case pass:
			g.Pass(now)
		case refused:
			g.Refused(now, s.asked, "429")
		case taken:
			g.Taken(now)
		}
		if phase, wait, n := g.Phase(now), g.Wait(now), g.Violations(now); phase != s.phase || wait != s.wait || n != s.count {
			t.Fatalf("step %d, %v: %s, wait %v, %d violations, want %s, %v, %d", i, s.at, phase, wait, n, s.phase, s.wait, s.count)
		}
	}
}

// Whatever happens, in whatever order: until never moves back while frozen, no
// more than one passes between a pause and an answer, and a gate opens at last.
func TestRandomLives(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		g, now := pressure.NewGate(policy, epoch), epoch
		var until limits.Time
		probes := 0
		for range 500 {
			now = now.Add(time.Duration(random.IntN(3000)) * time.Millisecond)
			was := g.Phase(now)
			if was != pressure.Probing {
				probes = 0
			}
			switch random.IntN(5) {
			case 0:
				g.Refused(now, time.Duration(random.IntN(30))*time.Second, "")
			case 1:
				g.Taken(now)
			default:
				if g.Wait(now) > 0 {
					continue
				}
				if was == pressure.Frozen {
					t.Fatalf("seed %d: one may pass while frozen", seed)
				}
				g.Pass(now)
				if was == pressure.Probing {
					if probes++; probes > 2 {
						t.Fatalf("seed %d: %d probes without an answer", seed, probes)
					}
				}
			}
			if g.Until() < until {
				t.Fatalf("seed %d: until moved back", seed)
			}
			until = g.Until()
		}
		now = now.Add(2 * time.Minute)
		for range 3 {
			if g.Wait(now) == 0 {
				g.Pass(now)
			}
			now = now.Add(10 * time.Second)
		}
		if p := g.Phase(now); p != pressure.Open {
			t.Fatalf("seed %d: %s at last, want open", seed, p)
		}
	}
}

func TestRestore(t *testing.T) {
	g := pressure.NewGate(policy, epoch)
	g.Refused(at(0), 0, "429")
	st := g.State()
	for _, c := range []struct {
		name  string
		at    time.Duration
		phase pressure.Phase
		wait  time.Duration
	}{
		{"within the pause", 4 * time.Second, pressure.Frozen, 6 * time.Second},
		{"after it", time.Hour, pressure.Probing, 0}, // nobody knows whether the upstream takes requests again
	} {
		again := pressure.NewGate(policy, at(c.at))
		again.Restore(at(c.at), st)
		if phase, wait := again.Phase(at(c.at)), again.Wait(at(c.at)); phase != c.phase || wait != c.wait {
			t.Errorf("%s: %s, wait %v, want %s, %v", c.name, phase, wait, c.phase, c.wait)
		}
	}
	again := pressure.NewGate(policy, epoch)
	if again.Restore(epoch, pressure.State{}); again.Phase(epoch) != pressure.Open || again.State() != (pressure.State{}) {
		t.Errorf("the zero state restores to %+v, want it open", again.State())
	}
}

// Instances tell each other of pauses; what is older or known changes nothing.
func TestMerge(t *testing.T) {
	a, b := pressure.NewGate(policy, epoch), pressure.NewGate(policy, epoch)
	a.Refused(at(0), 30*time.Second, "429")
	if !b.Merge(at(time.Second), a.State()) || b.Wait(at(time.Second)) != 29*time.Second {
		t.Errorf("after the merge %s, wait %v, want frozen, 29s", b.Phase(at(time.Second)), b.Wait(at(time.Second)))
	}
	if b.Merge(at(2*time.Second), a.State()) {
		t.Error("what is known was news")
	}
	b.Refused(at(3*time.Second), time.Minute, "429")
	c := pressure.NewGate(policy, epoch)
	c.Refused(at(-20*time.Second), 0, "429")
	if b.Merge(at(4*time.Second), c.State()) || b.Wait(at(4*time.Second)) != 59*time.Second {
		t.Errorf("an older pause changed the wait to %v, want 59s", b.Wait(at(4*time.Second)))
	}
	if b.Violations(at(4*time.Second)) != 1 {
		t.Errorf("%d violations, want 1", b.Violations(at(4*time.Second)))
	}
}

// A step of the clock makes a pause neither longer nor shorter.
func TestShift(t *testing.T) {
	for _, step := range []time.Duration{time.Hour, -time.Hour} {
		g := pressure.NewGate(policy, epoch)
		g.Refused(epoch, 0, "429")
		g.Shift(step)
		if got := g.Wait(at(step + 4*time.Second)); got != 6*time.Second {
			t.Errorf("step of %v: wait %v, want 6s", step, got)
		}
	}
}

func TestShare(t *testing.T) {
	for _, c := range []struct {
		name            string
		accepted, limit int64
		want            float64
	}{
		{"what was accepted, less a margin", 60, 92, 0.6},
		{"nobody knows", -1, 92, 0.75},
		{"no less than half", 1, 92, 0.5},
		{"at least a tenth", 92, 92, 0.9},
		{"no limit", 5, 0, 0.75},
		{"a limit of one", 0, 1, 0.5},
	} {
		var s pressure.Share
		s.Lower(epoch, c.accepted, c.limit)
		if got := s.Value(); got < c.want-1e-9 || got > c.want+1e-9 {
			t.Errorf("%s: share %v, want %v", c.name, got, c.want)
		}
	}
	var least pressure.Share
	for range 20 {
		least.Lower(epoch, 0, 100)
	}
	if got := least.Value(); got < 0.0499 || got > 0.0501 {
		t.Errorf("share %v after 20 refusals, want a twentieth", least.Value())
	}
	var s pressure.Share
	s.Lower(epoch, -1, 100)
	s.Lower(epoch, -1, 100)
	saved := s.State()
	if s.Raise(at(2*time.Minute), time.Minute) {
		t.Error("raised within twice the hold, after it was lowered twice")
	}
	if !s.Raise(at(3*time.Minute), time.Minute) || s.Value() < 0.572 || s.Value() > 0.573 {
		t.Errorf("share %v a minute after the hold, want 0.5725", s.Value())
	}
	if s.Raise(at(3*time.Minute+time.Second), time.Minute) {
		t.Error("raised twice in a minute")
	}
	if s.Raise(at(24*time.Hour), time.Minute); s.Value() != 1 {
		t.Errorf("share %v a day later, want 1", s.Value())
	}
	var again pressure.Share
	again.Restore(saved)
	if again.State() != saved {
		t.Errorf("restored to %+v, want %+v", again.State(), saved)
	}
}

func TestMeter(t *testing.T) {
	m := pressure.NewMeter(10 * time.Second)
	for i := range 20 {
		m.Count(at(time.Duration(i)*time.Second), 1)
	}
	if got := m.Sum(at(19 * time.Second)); got < 9 || got > 11 {
		t.Errorf("sum %d of one a second over 10s, want 10", got)
	}
	if got := m.Sum(at(time.Minute)); got != 0 {
		t.Errorf("sum %d after a quiet minute, want 0", got)
	}
	m.Count(at(-time.Hour), 3) // the clock was set
	if got := m.Sum(at(-time.Hour)); got != 3 {
		t.Errorf("sum %d after the clock was set, want 3", got)
	}
}

// TestMergeEarlierButLonger has two instances refused at once, of which the first
// was asked for the longer pause.
func TestMergeEarlierButLonger(t *testing.T) {
	a, b := pressure.NewGate(policy, epoch), pressure.NewGate(policy, epoch)
	a.Refused(epoch, time.Minute, "429")
	b.Refused(at(time.Second), 0, "429")
	if !b.Merge(at(2*time.Second), a.State()) || b.Wait(at(2*time.Second)) != 58*time.Second || b.Violations(at(2*time.Second)) != 1 {
		t.Errorf("waits %v after %d violations, want 58s after one", b.Wait(at(2*time.Second)), b.Violations(at(2*time.Second)))
	}
}
