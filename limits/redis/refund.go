package redis

import (
	"fmt"
	"sync"

	"github.com/tollgate-dev/tollgate/limits"
)

// refunds are requests that came back since they were noted as used: of a window
// it matters which. They are noted by decisions, so nothing is done about them here.
type refunds struct {
	mu   sync.Mutex // guards some
	some []slice
}

// maxRefunds is how many instants are told apart. Beyond them the older counts,
// which is the careful side.
const maxRefunds = 64

// add notes n that were taken at an instant.
func (r *refunds) add(n int64, at limits.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.some = addSlice(r.some, slice{n, at})
}

// take empties r.
func (r *refunds) take() []slice {
	r.mu.Lock()
	defer r.mu.Unlock()
	some := r.some
	r.some = nil
	return some
}

func addSlice(to []slice, s slice) []slice {
	if last := len(to) - 1; last >= 0 && (last == maxRefunds-1 || to[last].at == s.at) {
		to[last] = slice{to[last].n + s.n, min(to[last].at, s.at)}
		return to
	}
	return append(to, s)
}

// takeBack has what came back used no more: where Redis does not know of it yet it
// is struck from the slice that it was noted in, or one before, else Redis is told
// by the next report; mu is held. It returns how many were struck.
func (l *limit) takeBack() (struck int64) {
	w := &l.window
	for _, r := range l.turns.back.take() {
		if r.at <= w.toldAt && !w.keeps {
			w.undone, w.undid = addSlice(w.undone, r), w.undid+r.n
			continue
		}
		i := 0
		for i < len(w.slices)-1 && w.slices[i].at < r.at {
			i++
		}
		for ; i >= 0 && i < len(w.slices) && r.n > 0; i-- {
			some := w.strike(i, r.n)
			struck, r.n = struck+some, r.n-some
		}
	}
	return struck
}

// undoneText tells what came back of which Redis knows, in nanoseconds ago.
func (w *window) undoneText(now limits.Time) []byte {
	var text []byte
	for _, s := range w.undone {
		text = fmt.Appendf(text, "-%d/%d,", s.n, max(now.Sub(s.at), 0))
	}
	return text
}
