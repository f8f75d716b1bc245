package limits_test

import (
	"fmt"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// show tries one request at each instant, counted from noon, and prints the
// answers.
func show(l limits.Limit, at ...time.Duration) {
	spec, err := limits.Compile(l)
	if err != nil {
		fmt.Println(err)
		return
	}
	noon := limits.At(time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC))
	limiter := limits.New(spec, noon)
	for _, t := range at {
		if d := limiter.Take(noon.Add(t), 1); d.Allowed {
			fmt.Printf("%v: admitted, %d left\n", t, d.Remaining)
		} else {
			fmt.Printf("%v: refused, wait %v\n", t, d.Wait)
		}
	}
}

func Example_rate() {
	show(limits.Limit{Kind: limits.Rate, N: 2, Period: time.Second, Burst: 3},
		0, 0, 0, 0, 500*time.Millisecond, 10*time.Second)
	// Output:
	// 0s: admitted, 2 left
	// 0s: admitted, 1 left
	// 0s: admitted, 0 left
	// 0s: refused, wait 500ms
	// 500ms: admitted, 0 left
	// 10s: admitted, 2 left
}

func Example_pace() {
	show(limits.Limit{Kind: limits.Pace, N: 2, Period: time.Second},
		0, 0, 400*time.Millisecond, 500*time.Millisecond, 10*time.Second, 10*time.Second)
	// Output:
	// 0s: admitted, 0 left
	// 0s: refused, wait 500ms
	// 400ms: refused, wait 100ms
	// 500ms: admitted, 0 left
	// 10s: admitted, 0 left
	// 10s: refused, wait 500ms
}

func Example_window() {
	show(limits.Limit{Kind: limits.Window, N: 2, Period: 10 * time.Second},
		0, 8*time.Second, 9*time.Second, 10*time.Second, 11*time.Second, 18*time.Second)
	// Output:
	// 0s: admitted, 1 left
	// 8s: admitted, 0 left
	// 9s: refused, wait 1s
	// 10s: admitted, 0 left
	// 11s: refused, wait 7s
	// 18s: admitted, 0 left
}

func Example_fixedWindow() {
	// Two periods meet at 10 s, and four requests pass within two seconds.
	show(limits.Limit{Kind: limits.FixedWindow, N: 2, Period: 10 * time.Second},
		9*time.Second, 9*time.Second, 9*time.Second, 10*time.Second, 11*time.Second, 12*time.Second)
	// Output:
	// 9s: admitted, 1 left
	// 9s: admitted, 0 left
	// 9s: refused, wait 1s
	// 10s: admitted, 1 left
	// 11s: admitted, 0 left
	// 12s: refused, wait 8s
}

func Example_quota() {
	// The day after is one on which Berlin's clocks go forward: 23 hours.
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		fmt.Println(err)
		return
	}
	show(limits.Limit{Kind: limits.Quota, N: 1, Calendar: limits.Day, Location: berlin},
		0, time.Hour, 11*time.Hour, 12*time.Hour)
	// Output:
	// 0s: admitted, 0 left
	// 1h0m0s: refused, wait 10h0m0s
	// 11h0m0s: admitted, 0 left
	// 12h0m0s: refused, wait 22h0m0s
}

func Example_idleReset() {
	show(limits.Limit{Kind: limits.IdleReset, N: 2, Period: 10 * time.Second},
		0, 9*time.Second, 15*time.Second, 18*time.Second, 19*time.Second)
	// Output:
	// 0s: admitted, 1 left
	// 9s: admitted, 0 left
	// 15s: refused, wait 4s
	// 18s: refused, wait 1s
	// 19s: admitted, 1 left
}

func Example_smoothBursty() {
	show(limits.Limit{Kind: limits.SmoothBursty, N: 2, Period: time.Second},
		0, 0, 10*time.Second, 10*time.Second, 10*time.Second, 10*time.Second)
	// Output:
	// 0s: admitted, 0 left
	// 0s: refused, wait 500ms
	// 10s: admitted, 2 left
	// 10s: admitted, 1 left
	// 10s: admitted, 0 left
	// 10s: refused, wait 500ms
}

func Example_smoothWarmingUp() {
	show(limits.Limit{Kind: limits.SmoothWarmingUp, N: 2, Period: time.Second, WarmUp: limits.WarmUp{Ramp: 4 * time.Second}},
		0, 0, 1250*time.Millisecond, 1250*time.Millisecond)
	// Output:
	// 0s: admitted, 0 left
	// 0s: refused, wait 1.375s
	// 1.25s: refused, wait 125ms
	// 1.25s: refused, wait 125ms
}

func Example_warmUp() {
	show(limits.Limit{Kind: limits.Rate, N: 1, Period: time.Second,
		WarmUp: limits.WarmUp{Grace: time.Second, GraceLimit: 3, Ramp: time.Second}},
		0, 0, 0, 0, time.Second, 1500*time.Millisecond, 3*time.Second)
	// Output:
	// 0s: admitted, 2 left
	// 0s: admitted, 1 left
	// 0s: admitted, 0 left
	// 0s: refused, wait 1s
	// 1s: admitted, 0 left
	// 1.5s: admitted, 0 left
	// 3s: admitted, 0 left
}

func ExampleTakeAll() {
	rate, _ := limits.Compile(limits.Limit{Kind: limits.Rate, N: 10, Period: time.Second})
	quota, _ := limits.Compile(limits.Limit{Kind: limits.Quota, N: 1, Calendar: limits.Minute})
	now := limits.At(time.Date(2026, 3, 28, 12, 0, 50, 0, time.UTC))
	claims := []limits.Claim{{Limiter: limits.New(rate, now), N: 1}, {Limiter: limits.New(quota, now), N: 1}}

	fmt.Println(limits.TakeAll(now, claims), claims[0].Decision.Remaining, claims[1].Decision.Remaining)
	i := limits.TakeAll(now, claims)
	fmt.Println(claims[i].Limiter.Spec().Limit().Name, claims[i].Decision.Wait, claims[0].Decision.Remaining)
	// Output:
	// -1 9 0
	// quota-1-minute 10s 9
}

func ExampleLimiter_SetSpec() {
	ten, _ := limits.Compile(limits.Limit{Kind: limits.Rate, N: 10, Period: time.Second})
	thousand, _ := limits.Compile(limits.Limit{Kind: limits.Rate, N: 1000, Period: time.Second})
	now := limits.At(time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC))
	l := limits.New(ten, now)
	l.Take(now, 4)
	l.SetSpec(now, thousand)
	fmt.Println(l.Peek(now, 1).Remaining)
	// Output: 600
}

func ExampleLimiter_SetRate() {
	spec, _ := limits.Compile(limits.Limit{Kind: limits.Rate, N: 10, Period: time.Second})
	now := limits.NewClock().Now()
	l := limits.New(spec, now)
	l.Take(now, 5)
	_ = l.SetRate(now, 100, time.Second)
	fmt.Println(l.Spec().Limit().Name, l.Peek(now, 1).Remaining)
	// Output: rate-100-s 50
}
