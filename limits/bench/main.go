// Command bench compares limits with other Go rate limiters, side by side in
// one run. It is a module of its own, so that Tollgate does not depend on them.
// README.md says what came out.
//
// The subjects take turns in short rounds, so that whatever else the machine
// does disturbs all of them alike; the best and the median round are printed.
//
//	go run . -rounds 50
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/throttled/throttled/v2"
)

func main() {
	rounds := flag.Int("rounds", 50, "rounds of each subject")
	keys := flag.Int("keys", 1_000_000, "the larger number of keys")
	flag.Parse()
	fmt.Printf("%s %s/%s, GOMAXPROCS %d, %d rounds: ns per decision, best (median)\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), *rounds)

	one := []string{"key"}
	for _, c := range []contest{
		{"one limiter, admitted", allAdmitted(), one, 1},
		{"one limiter, refused", allRefused(), one, 1},
		{"one limiter, admitted, 8 goroutines", allAdmitted(), one, 8},
		{"one limiter, refused, 8 goroutines", allRefused(), one, 8},
	} {
		c.run(os.Stdout, *rounds)
	}
	for _, n := range []int{1000, *keys} {
		subjects, known := keyed(n)
		for _, goroutines := range []int{1, 8} {
			contest{fmt.Sprintf("one of %d keys, %d goroutines", n, goroutines), subjects, known, goroutines}.run(os.Stdout, *rounds)
		}
	}
}

// contest is one comparison: the subjects decide about random ones of the keys.
type contest struct {
	name       string
	subjects   []subject
	keys       []string
	goroutines int
}

// perRound is how many decisions a round takes, all goroutines together.
const perRound = 80_000

func (c contest) run(out *os.File, rounds int) {
	took := make([][]time.Duration, len(c.subjects))
	for range rounds {
		for i, s := range c.subjects {
			took[i] = append(took[i], c.round(s))
		}
	}
	fmt.Fprintf(out, "\n%s\n", c.name)
	for i, s := range c.subjects {
		slices.Sort(took[i])
		ns := func(d time.Duration) float64 { return float64(d) / perRound }
		fmt.Fprintf(out, "  %-24s %6.0f (%.0f)", s.name, ns(took[i][0]), ns(took[i][rounds/2]))
		if s.perKey > 0 {
			fmt.Fprintf(out, "  %4.0f B/key", s.perKey)
		}
		fmt.Fprintln(out)
	}
}

func (c contest) round(s subject) time.Duration {
	var wg sync.WaitGroup
	begun := time.Now()
	for range c.goroutines {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(rand.Uint64(), 1))
			for range perRound / c.goroutines {
				s.take(c.keys[rnd.IntN(len(c.keys))])
			}
		})
	}
	wg.Wait()
	return time.Since(begun)
}

// keyed returns the subjects with n keys each, and the keys to ask about.
func keyed(n int) ([]subject, []string) {
	stored, asked := make([]string, n), make([]string, n)
	for i := range stored {
		stored[i] = fmt.Sprintf("user=%08d", i)
		// A key comes with its request: it is never the string that was stored.
		asked[i] = strings.Clone(stored[i])
	}
	var subjects []subject
	for _, build := range []func() subject{
		func() subject { return table(n) },
		func() subject { return lru(n) },
		func() subject { return sethvargo(100, time.Second) },
		func() subject { return gcra(0, throttled.PerSec(100), 99) },
		func() subject { return gcra(n, throttled.PerSec(100), 99) },
		xtimeMap,
	} {
		before := heap()
		s := build()
		for _, k := range stored {
			s.take(k)
		}
		s.perKey = float64(heap()-before) / float64(n)
		subjects = append(subjects, s)
	}
	return subjects, asked
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
