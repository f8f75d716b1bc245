package fastgrpc

import (
	"testing"
	"time"
)

// A connection that is idle but for its PINGs must live for ever.
func TestBudgetIsEarnedBackByTime(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	b := budget{left: budgetFull, refill: now}
	for range 10 * budgetFull {
		now = now.Add(time.Second)
		b.pass(now)
		if !b.spend(1) {
			t.Fatal("one frame a second used the budget up")
		}
	}
	for range budgetFull {
		b.spend(1)
	}
	if b.spend(1) {
		t.Fatal("a flood did not use the budget up")
	}
	b.left = 0
	b.pass(now.Add(500 * time.Millisecond))
	if want := budgetPerSecond / 2; b.left != want {
		t.Errorf("half a second earned %d, want %d", b.left, want)
	}
}
