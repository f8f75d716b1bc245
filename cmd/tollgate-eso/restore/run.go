package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/allowance"
)

// Cluster is where targets are. [Kubernetes] is one.
type Cluster interface {
	// Send makes External Secrets refresh a target, and marks it. False: somebody
	// changed it meanwhile, and it is to be tried again. The error is [ErrGone] for
	// one that is not there any more.
	Send(ctx context.Context, t *Target, run string, now time.Time) (bool, error)
	// Outcome says what has become of a target that was sent, and why it failed.
	Outcome(ctx context.Context, t *Target) (Outcome, string, error)
}

// ErrGone is that a target was deleted.
var ErrGone = errors.New("deleted meanwhile")

// Allowance is what Tollgate says; [allowance.Watcher] is one.
type Allowance interface {
	Refresh(ctx context.Context) error
	State(upstream string) (allowance.State, bool)
}

// Options of a run.
type Options struct {
	Cluster   Cluster
	Allowance Allowance
	Upstream  string // as Tollgate knows it
	Run       string // its name in marks
	Settle    time.Duration
	Poll      time.Duration  // how often to look; 0: 200 ms
	Show      func(Progress) // after each look; nil: nobody sees it
}

// DefaultSettle is for Options.Settle: how long a target may take without one that
// was sent before it coming back, and how long one that failed may be retried by
// External Secrets until that counts.
const DefaultSettle = time.Minute

func (o Options) withDefaults() Options {
	if o.Settle <= 0 {
		o.Settle = DefaultSettle
	}
	if o.Poll <= 0 {
		o.Poll = 200 * time.Millisecond
	}
	if o.Show == nil {
		o.Show = func(Progress) {}
	}
	return o
}

// Failure is a target that was not restored.
type Failure struct {
	Target *Target
	Why    string
	at     time.Time
}

// Run restores targets, in their order, and returns those that failed. The error is
// why it could not go on; what was sent until then is marked.
func Run(ctx context.Context, o Options, targets []*Target) ([]Failure, error) {
	r := &runner{o: o.withDefaults(), targets: targets, waves: Waves(targets), began: time.Now()}
	r.enter()
	for {
		wait, done, err := r.step(ctx)
		if err := errors.Join(err, ctx.Err()); err != nil {
			return r.failed, err
		}
		if r.o.Show(r.progress(time.Now())); done {
			return r.failed, nil
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// runner is a run. It is for one goroutine.
type runner struct {
	o       Options
	targets []*Target
	waves   []Wave
	wave    int // the index of the one under way
	began   time.Time

	queue  []*Target // of the wave, not sent
	flying []flight  // in the order of sending
	failed []Failure // External Secrets may yet succeed with them
	done   tally
	sent   int // calls, of this process
	state  allowance.State
	why    string // nothing is sent just now
}

// flight is a target that was sent.
type flight struct {
	target *Target
	last   time.Time // when it was sent, or one that was sent before it came back
}

// tally counts what was restored.
type tally struct{ objects, calls int }

// enter begins a wave. What an earlier process has sent is under way.
func (r *runner) enter() {
	if r.wave >= len(r.waves) {
		return
	}
	now := time.Now()
	for _, t := range r.waves[r.wave].Targets {
		if t.Sent.IsZero() {
			r.queue = append(r.queue, t)
			continue
		}
		r.flying = append(r.flying, flight{t, now})
	}
}

// step does what can be done now, and returns when to look again.
func (r *runner) step(ctx context.Context) (wait time.Duration, done bool, err error) {
	if err := r.look(ctx, time.Now()); err != nil {
		return 0, false, err
	}
	for len(r.queue)+len(r.flying) == 0 && r.wave < len(r.waves) {
		r.wave++
		r.enter()
		if err := r.look(ctx, time.Now()); err != nil {
			return 0, false, err
		}
	}
	if r.wave == len(r.waves) && !r.mayRecover(time.Now()) {
		return 0, true, nil
	}
	if r.why = ""; !r.ask(ctx) {
		r.hold(time.Now())
		return r.o.Poll, false, nil
	}
	return r.o.Poll, false, r.send(ctx)
}

// ask reads the allowance; false: nothing may be sent.
func (r *runner) ask(ctx context.Context) bool {
	err := r.o.Allowance.Refresh(ctx)
	state, ok := r.o.Allowance.State(r.o.Upstream)
	switch {
	case err != nil:
		r.why = "Tollgate cannot be asked: " + err.Error() // what is not known is not allowed
	case !ok:
		r.why = fmt.Sprintf("Tollgate has no upstream %q", r.o.Upstream)
	case state.Paused():
		r.state, r.why = state, "the upstream is paused"
		if state.Until != nil {
			r.why += " until " + state.Until.Local().Format(time.TimeOnly)
		}
	default:
		r.state = state
		return true
	}
	return false
}

// hold keeps the time that nothing could come back in from counting.
func (r *runner) hold(now time.Time) {
	for i := range r.flying {
		r.flying[i].last = now
	}
	for i := range r.failed {
		r.failed[i].at = now
	}
}

// look takes in what has come back, and what never will.
func (r *runner) look(ctx context.Context, now time.Time) error {
	recovering := r.failed[:0]
	for _, f := range r.failed {
		outcome, _, err := r.o.Cluster.Outcome(ctx, f.Target)
		if err != nil {
			return err
		}
		if outcome == Synced {
			r.count(f.Target)
			continue
		}
		recovering = append(recovering, f)
	}
	r.failed = recovering
	still, landed := r.flying[:0], false
	for _, f := range r.flying {
		outcome, why, err := r.o.Cluster.Outcome(ctx, f.target)
		if err != nil {
			return err
		}
		if landed {
			f.last = now
		}
		switch {
		case outcome == Synced:
			r.count(f.target)
			landed = true
		case outcome == Failed:
			r.fail(now, f.target, why)
			landed = true
		case now.Sub(f.last) > r.o.Settle:
			r.fail(now, f.target, fmt.Sprintf("did not come back within %v", r.o.Settle))
		default:
			still = append(still, f)
		}
	}
	r.flying = still
	return nil
}

func (r *runner) count(t *Target) {
	r.done.objects += len(t.Members)
	r.done.calls += t.Calls
}

func (r *runner) fail(now time.Time, t *Target, why string) {
	r.failed = append(r.failed, Failure{Target: t, Why: why, at: now})
}

// mayRecover reports whether External Secrets still retries what has failed just
// now. It waits 1, 2, 4 s and so on.
func (r *runner) mayRecover(now time.Time) bool {
	for _, f := range r.failed {
		if now.Sub(f.at) < r.o.Settle && !f.Target.Sent.IsZero() {
			return true
		}
	}
	return false
}

// send writes as many targets, in order, as the upstream allows beside the calls of
// those that have not come back.
func (r *runner) send(ctx context.Context) error {
	room, large := r.state.Calls(), len(r.flying) == 0
	for _, f := range r.flying {
		room -= f.target.Calls
	}
	for len(r.queue) > 0 {
		t := r.queue[0]
		if live, ok := r.o.Allowance.State(r.o.Upstream); ok && live.Paused() {
			return nil // since this batch was begun
		}
		if t.Calls > room && !(large && r.exceeds(t, room)) {
			return nil
		}
		large = false
		now := time.Now()
		ok, err := r.o.Cluster.Send(ctx, t, r.o.Run, now)
		switch {
		case errors.Is(err, ErrGone):
			r.fail(now, t, err.Error())
		case err != nil:
			return err
		case !ok:
			r.queue = append(r.queue[1:], t)
			return nil
		default:
			room -= t.Calls
			r.sent += t.Calls
			r.flying = append(r.flying, flight{t, now})
		}
		r.queue = r.queue[1:]
	}
	return nil
}

// exceeds reports whether a target makes more calls than the upstream ever allows
// at once. It goes alone, when all is allowed that ever is: Tollgate holds it.
func (r *runner) exceeds(t *Target, room int) bool {
	return room > 0 && int64(t.Calls) > r.state.WorkingLimit && int64(room) >= r.state.WorkingLimit
}
