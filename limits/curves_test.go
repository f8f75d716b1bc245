package limits_test

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

var (
	update = flag.Bool("update", false, "write the golden curves anew")
	plots  = flag.Bool("plots", false, "draw the golden curves as testdata/curves/*.svg")
)

// TestCurves holds what a saturating client gets, in slices of 100 ms, against
// golden files, which -plots draws.
func TestCurves(t *testing.T) {
	const s = time.Second
	slow := warmed(10, s)
	slow.WarmUp = limits.WarmUp{Grace: s, GraceLimit: 20, Ramp: 3 * s}
	for name, l := range map[string]limits.Limit{
		"rate":              burst(20, 20),
		"warm-up":           warmed(20, s),
		"warm-up-capped":    slow,
		"pace":              ofKind(limits.Pace, 20, s),
		"fixed-window":      ofKind(limits.FixedWindow, 20, s),
		"window":            ofKind(limits.Window, 20, s),
		"idle-reset":        ofKind(limits.IdleReset, 20, s),
		"smooth-bursty":     ofKind(limits.SmoothBursty, 20, s),
		"smooth-warming-up": {Kind: limits.SmoothWarmingUp, N: 20, Period: s, WarmUp: limits.WarmUp{Ramp: 4 * s}},
	} {
		t.Run(name, func(t *testing.T) {
			got := measure(t, l)
			file := filepath.Join("testdata", "curves", name+".csv")
			if *update {
				write(t, file, got.csv())
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.csv(), want) {
				t.Errorf("the curve is not that of %s:\n%s", file, got.csv())
			}
			if *plots {
				write(t, strings.TrimSuffix(file, ".csv")+".svg", got.svg(name+": "+spec(t, l).Limit().Name))
			}
		})
	}
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// series has a point for each slice of 100 ms.
type series struct {
	limit    limits.Limit
	admitted []int
	curve    []float64
}

// measure has a client that tries every 5 ms, idle_reset's once it may.
func measure(t *testing.T, l limits.Limit) series {
	lim, r := limits.New(spec(t, l), epoch), series{limit: l}
	seen := 0
	for slice := range 60 {
		admitted := 0
		for i := range 20 {
			at := time.Duration(slice)*100*ms + time.Duration(i)*5*ms
			if lim.Take(epoch.Add(at), 1).Allowed {
				admitted++
				if at < l.WarmUp.Grace {
					seen++
				}
			}
		}
		r.admitted = append(r.admitted, admitted)
		r.curve = append(r.curve, min(published(l, float64(seen), time.Duration(slice)*100*ms+50*ms)/10, 20))
	}
	return r
}

func (r series) csv() []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, "ms,admitted,curve")
	for i, n := range r.admitted {
		fmt.Fprintf(&b, "%d,%d,%.3f\n", i*100, n, r.curve[i])
	}
	return b.Bytes()
}

// svg draws bars for what was admitted and a line for the curve.
func (r series) svg(title string) []byte {
	const width, height, bar, left, top = 760, 260, 11, 50, 30
	most := 1.0
	for i, n := range r.admitted {
		most = max(most, float64(n), r.curve[i])
	}
	y := func(v float64) float64 { return top + (height-60)*(1-v/most) }
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/><text x="%d" y="18">%s (admitted in 100 ms)</text>`+"\n", left, title)
	for v := 0.0; v <= most; v += math.Ceil(most / 5) {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="8" y="%.1f">%g</text>`+"\n", left, y(v), left+60*bar, y(v)+4, v)
	}
	line := make([]string, len(r.curve))
	for i, n := range r.admitted {
		x := left + i*bar
		fmt.Fprintf(&b, `<rect x="%d" y="%.1f" width="%d" height="%.1f" fill="#7aa6da"/>`+"\n", x, y(float64(n)), bar-2, y(0)-y(float64(n)))
		line[i] = fmt.Sprintf("%.1f,%.1f", float64(x)+float64(bar)/2, y(r.curve[i]))
		if i%10 == 0 {
			fmt.Fprintf(&b, `<text x="%d" y="%d">%d s</text>`+"\n", x, height-12, i/10)
		}
	}
	fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="#c0392b" stroke-width="1.5"/>`+"\n</svg>\n", strings.Join(line, " "))
	return b.Bytes()
}
