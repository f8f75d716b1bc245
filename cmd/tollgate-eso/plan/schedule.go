package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Wave is the objects that are refreshed together, Offset after the beginning,
// and again each Every of theirs.
type Wave struct {
	Offset  time.Duration
	Calls   int64
	Objects []Placed
}

// Placed is an object with the interval that the plan gives it.
type Placed struct {
	Object
	Every time.Duration
}

// divisible has many divisors: intervals become those multiples of the smallest
// one, which loses little and lets all meet again soon.
const divisible = 10080

// mostSlots bounds the memory of a plan.
const mostSlots = 1 << 23

// schedule places objects so that no slot has more than batch calls. full are
// those for which there is no place.
func schedule(objects []Object, batch int64, pitch time.Duration) (waves []Wave, full []Object) {
	objects = slices.Clone(objects)
	slices.SortStableFunc(objects, func(a, b Object) int {
		return cmp.Or(cmp.Compare(a.Every, b.Every), cmp.Compare(b.Calls, a.Calls))
	})
	if len(objects) == 0 {
		return nil, nil
	}
	base := objects[0].Every
	perRound := int(base / pitch) // slots in an interval of the smallest length
	if perRound == 0 {
		return nil, objects
	}
	slot := base / time.Duration(perRound)
	rounds := 1 // until all meet again
	times := make([]int, len(objects))
	for i, o := range objects {
		times[i] = multiple(o.Every, base, rounds, perRound)
		rounds = lcm(rounds, times[i])
	}
	used := make([]int64, rounds*perRound)
	at := map[int]*Wave{}
	for i, o := range objects {
		period := times[i] * perRound
		place := firstFree(used, period, int64(o.Calls), batch)
		if place < 0 {
			full = append(full, o)
			continue
		}
		for s := place; s < len(used); s += period {
			used[s] += int64(o.Calls)
		}
		w := at[place]
		if w == nil {
			w = &Wave{Offset: time.Duration(place) * slot}
			at[place] = w
		}
		w.Calls += int64(o.Calls)
		w.Objects = append(w.Objects, Placed{Object: o, Every: base * time.Duration(times[i])})
	}
	for _, w := range at {
		waves = append(waves, *w)
	}
	slices.SortFunc(waves, func(a, b Wave) int { return cmp.Compare(a.Offset, b.Offset) })
	return waves, full
}

// firstFree returns the first slot of a period in which so many calls have room
// in all rounds, or -1.
func firstFree(used []int64, period int, calls, batch int64) int {
	for place := range period {
		free := true
		for s := place; s < len(used); s += period {
			if used[s]+calls > batch {
				free = false
				break
			}
		}
		if free {
			return place
		}
	}
	return -1
}

// multiple returns how many intervals of length base an object waits for: a
// divisor of divisible, and no more than keeps the slots few.
func multiple(every, base time.Duration, rounds, perRound int) int {
	for n := int(min(every/base, divisible)); n > 1; n-- {
		if divisible%n == 0 && lcm(rounds, n)*perRound <= mostSlots {
			return n
		}
	}
	return 1
}

func lcm(a, b int) int {
	g, r := a, b
	for r != 0 {
		g, r = r, g%r
	}
	return a / g * b
}

// smallest returns the least interval, the same for all, in which the objects can
// be refreshed: for slots and for budgets. An error is an object that never can.
func smallest(objects []Object, a Allowance) (time.Duration, error) {
	batch, pitch := a.Batch()
	sorted := slices.Clone(objects)
	slices.SortStableFunc(sorted, func(x, y Object) int { return cmp.Compare(y.Calls, x.Calls) })
	var bins []int64
	var sum int64
	for _, o := range sorted {
		calls := int64(o.Calls)
		if calls > batch {
			return 0, fmt.Errorf("%s makes %d calls in a refresh, and no more than %d may come at once", o, calls, batch)
		}
		sum += calls
		i := slices.IndexFunc(bins, func(b int64) bool { return b+calls <= batch })
		if i < 0 {
			bins, i = append(bins, 0), len(bins)
		}
		bins[i] += calls
	}
	least := time.Duration(len(bins)) * pitch
	for _, b := range a.Budgets {
		if b.Calls == 0 && sum > 0 {
			return 0, fmt.Errorf("a budget of 0 calls per %s allows none", b.Calendar)
		}
		if sum > 0 {
			least = max(least, time.Duration(float64(longest[b.Calendar])*float64(sum)/float64(b.Calls)))
		}
	}
	return roundUp(least), nil
}

// roundUp makes an interval one that people would write.
func roundUp(d time.Duration) time.Duration {
	unit := time.Second
	switch {
	case d > 2*time.Hour:
		unit = 5 * time.Minute
	case d > 5*time.Minute:
		unit = time.Minute
	case d > time.Minute:
		unit = 10 * time.Second
	}
	return (d + unit - 1) / unit * unit
}
