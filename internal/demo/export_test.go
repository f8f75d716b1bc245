package demo

import (
	"time"

	"github.com/tollgate-dev/tollgate/internal/telemetry"
)

// Frames draws two frames, one second apart, of these totals.
func Frames(first, second []telemetry.Tally) (a, b string) {
	began := time.Unix(0, 0)
	p := picture{people: people(), began: began}
	p.update(first, began.Add(time.Second))
	a = string(p.frame())
	p.update(second, began.Add(2*time.Second))
	return a, string(p.frame())
}
