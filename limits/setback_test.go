package limits_test

import (
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// One who was stopped between his clock and his limiter, for how long ever, is
// decided about as if he came now, and leaves nothing behind but what he takes.
func TestAStoppedThreadChangesNothing(t *testing.T) {
	const far = -100 * time.Hour
	later := []time.Duration{0, time.Millisecond, 90 * time.Millisecond, time.Second, time.Minute, 48 * time.Hour}
	for name, l := range everyKind() {
		t.Run(name, func(t *testing.T) {
			s := spec(t, l)
			for _, used := range []int64{1, (s.Capacity() + 1) / 2, s.Capacity()} {
				stopped, twin := limits.New(s, epoch), limits.New(s, epoch)
				for _, l := range []*limits.Limiter{stopped, twin} {
					l.Take(epoch, used)
				}
				for _, at := range []time.Duration{far, far + 50*time.Millisecond, far + 99*time.Millisecond} {
					stopped.Peek(epoch.Add(at), 1)
					if stopped.Take(epoch.Add(at), 1).Allowed && !twin.Take(epoch, 1).Allowed {
						t.Errorf("after %d were taken, one who was stopped is admitted who else is not", used)
					}
				}
				for _, after := range later {
					if got, want := stopped.Peek(epoch.Add(after), 1), twin.Peek(epoch.Add(after), 1); got != want {
						t.Errorf("%v after %d were taken: Peek = %+v, want %+v as without who was stopped", after, used, got, want)
					}
				}
			}
		})
	}
}

// However many are stopped, one after the other: others show that time goes on.
func TestStoppedThreadsAreNoClockSetBack(t *testing.T) {
	for name, l := range map[string]limits.Limit{
		"rate": {Kind: limits.Rate, N: 10, Period: time.Second, Burst: 1000}, "window": ofKind(limits.Window, 1000, time.Minute),
		"idle_reset": ofKind(limits.IdleReset, 1000, time.Minute),
	} {
		t.Run(name, func(t *testing.T) {
			stopped, twin := limits.New(spec(t, l), epoch), limits.New(spec(t, l), epoch)
			for i := range time.Duration(100) {
				now := epoch.Add(i * 100 * time.Millisecond)
				d := stopped.Take(now.Add(-time.Hour), 1001) // more than there can be: a look
				if got, want := stopped.Take(now, 1), twin.Take(now, 1); d.Allowed || got != want {
					t.Fatalf("request %d: Take = %+v, want %+v as without those who were stopped", i, got, want)
				}
			}
		})
	}
}
