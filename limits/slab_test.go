package limits_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// TestSlab: limiters of one slab know nothing of each other, though they share
// what they point to, and many limits come and go.
func TestSlab(t *testing.T) {
	slab := limits.NewSlab()
	specs := make([]*limits.Spec, 9)
	for i := range specs {
		l := fixed(int64(i+2), time.Minute)
		if i%3 == 0 {
			l = ofKind(limits.Window, int64(i+2), time.Minute) // has state of its own besides
		}
		specs[i] = spec(t, l)
	}
	for round := range 5 {
		for i := range 30 {
			slab.At(i).Init(specs[(i*(round+1)+round)%len(specs)], epoch)
		}
		for i := range 30 {
			k := (i*(round+1) + round) % len(specs)
			if got := slab.At(i).Spec(); got != specs[k] {
				t.Fatalf("round %d: limiter %d is under %v, want %v", round, i, got.Limit(), specs[k].Limit())
			}
			admitted := 0
			for slab.At(i).Take(epoch, 1).Allowed {
				admitted++
			}
			if admitted != k+2 {
				t.Errorf("round %d: limiter %d admits %d, want %d", round, i, admitted, k+2)
			}
		}
	}
}

// TestMove: a limiter that was moved decides as one whose limit was set, by
// either.
func TestMove(t *testing.T) {
	for name, l := range everyKind() {
		for _, n := range []int64{0, 3, 50} {
			t.Run(fmt.Sprint(name, " to ", n), func(t *testing.T) {
				from, other := spec(t, l), l
				other.N, other.Burst = n, 0
				to := spec(t, other)
				set, moved, next := limits.New(from, epoch), limits.New(from, epoch), limits.NewSlab().At(7)
				for i := range 5 {
					set.Take(epoch.Add(time.Duration(i)*time.Millisecond), 1)
					moved.Take(epoch.Add(time.Duration(i)*time.Millisecond), 1)
				}
				now := epoch.Add(10 * time.Millisecond)
				set.SetSpec(now, to)
				if !moved.Move(now, to, next) {
					t.Fatal("Move = false of a limiter that nobody uses")
				}
				if a, b := set.Usage(), next.Usage(); a != b {
					t.Errorf("usage %+v, want %+v", b, a)
				}
				for i, l := range []*limits.Limiter{next, moved, next, moved, next} {
					now = now.Add(time.Duration(i*i) * 100 * time.Millisecond)
					if want, got := set.Take(now, 1), l.Take(now, 1); got != want {
						t.Errorf("decision %d: %+v, want %+v", i, got, want)
					}
				}
				if a, b := set.State(), next.State(); a != b {
					t.Errorf("state %+v, want %+v", b, a)
				}
			})
		}
	}
}

func TestMoveOfWhatIsOver(t *testing.T) {
	s := spec(t, fixed(5, time.Minute))
	l := limits.New(s, epoch)
	l.Close()
	if l.Move(epoch, spec(t, fixed(6, time.Minute)), limits.NewSlab().At(0)) {
		t.Error("a closed limiter was moved")
	}
}

// TestMoveWhileOthersTake: nothing is lost and nothing minted, by whichever of
// the limiters they take.
func TestMoveWhileOthersTake(t *testing.T) {
	const n = 2000
	l := fixed(n, time.Hour)
	specs := [2]*limits.Spec{}
	for i := range specs {
		l.Name = fmt.Sprint("limit", i)
		specs[i] = spec(t, l)
	}
	slab := limits.NewSlab()
	slab.At(0).Init(specs[0], epoch)
	var current, admitted atomic.Int64
	parallel(func(g int) {
		for i := range n {
			if g == 0 {
				if at := current.Load(); i%4 == 0 {
					if !slab.At(int(at)).Move(epoch, specs[(at+1)%2], slab.At(int(at+1))) {
						t.Error("Move = false")
						return
					}
					current.Store(at + 1)
				}
			}
			at := max(0, current.Load()-int64(i%3)) // one before, too
			if slab.At(int(at)).Take(epoch, 1).Allowed {
				admitted.Add(1)
			}
		}
	})
	if got := admitted.Load(); got != n {
		t.Errorf("%d were admitted, want %d", got, n)
	}
}
