package redis

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tollgate-dev/tollgate/limits"
)

// What scripts read and write is text: instants are seconds and nanoseconds,
// since numbers in Lua are not exact enough for both in one.

var errAnswer = errors.New("the script's answer cannot be meant")

const (
	unused  = math.MinInt64 // as in limits.State: nothing was taken yet
	longAgo = -1 << 60      // no instant of a decision is before it
)

func num(n int64) string { return strconv.FormatInt(n, 10) }

func bit(yes bool) string {
	if yes {
		return "1"
	}
	return "0"
}

func formatTime(t limits.Time) string {
	if t < longAgo {
		return "-"
	}
	s, ns := int64(t)/1e9, int64(t)%1e9
	if ns < 0 {
		s, ns = s-1, ns+1e9
	}
	return fmt.Sprintf("%d.%09d", s, ns)
}

func parseTime(text string) (limits.Time, error) {
	if text == "-" {
		return unused, nil
	}
	whole, fraction, ok := strings.Cut(text, ".")
	s, err := strconv.ParseInt(whole, 10, 64)
	ns, err2 := strconv.ParseInt(fraction, 10, 64)
	if !ok || err != nil || err2 != nil || ns < 0 || ns > 999_999_999 {
		return 0, fmt.Errorf("%w: instant %q", errAnswer, text)
	}
	const most = math.MaxInt64/int64(1e9) - 1
	return limits.Time(min(max(s, -most), most)*1e9 + ns), nil
}

// shareable reports whether the scripts know a limit's kind.
func shareable(s *limits.Spec) bool {
	switch s.Limit().Kind {
	case limits.Rate, limits.Pace, limits.FixedWindow, limits.Quota, limits.Window, limits.IdleReset:
		return true
	}
	return false
}

// specText tells the scripts what a limit is; it is empty for a kind that they
// do not know.
func specText(s *limits.Spec) string {
	l := s.Limit()
	switch l.Kind {
	case limits.Rate, limits.Pace:
		w := l.WarmUp
		return fmt.Sprintf("g:%d:%d:%d:%d:%d:%d", s.Interval(), l.Burst, w.Grace, w.Ramp, w.Idle, w.GraceLimit)
	case limits.FixedWindow:
		return fmt.Sprintf("c:%d:%d", l.N, l.Period)
	case limits.Quota:
		zone := "UTC"
		if l.Location != nil {
			zone = strings.ReplaceAll(l.Location.String(), " ", "_")
		}
		return fmt.Sprintf("c:%d:%d:q:%s:%s", l.N, average(s), l.Calendar, zone)
	case limits.Window:
		return fmt.Sprintf("w:%d:%d", l.N, l.Period)
	case limits.IdleReset:
		return fmt.Sprintf("i:%d:%d", l.N, l.Period)
	}
	return ""
}

// average is how long a quota's period is, about.
func average(s *limits.Spec) int64 {
	begins, _ := s.Counts(0)
	return int64(begins[2].Sub(begins[1]))
}

func boundsText(s *limits.Spec, now limits.Time) string {
	begins, ok := s.Counts(now)
	if !ok {
		return "-"
	}
	return formatTime(begins[0]) + "," + formatTime(begins[1]) + "," + formatTime(begins[2]) + "," + formatTime(begins[3])
}

// note is what an instance remembers of a shared limiter: when it was reset and
// begun, how often it was written, and its state as text.
type note struct {
	reset, epoch, seq int64
	text              string
}

// maxNote bounds what is remembered of one limiter.
const maxNote = 1000

// after reports whether n is of a later state than m.
func (n *note) after(m *note) bool {
	return cmp.Or(cmp.Compare(n.reset, m.reset), cmp.Compare(n.epoch, m.epoch), cmp.Compare(n.seq, m.seq)) > 0
}

// forgotten is a note of a limiter of which nothing is known but its resets.
func forgotten(reset int64, kind limits.Kind) note {
	b := "0"
	if kind == limits.Rate || kind == limits.Pace {
		b = "warm"
	}
	return note{reset: reset, text: fmt.Sprintf("%d 0 0 - %s 0 - 0", reset, b)}
}

// noteOf makes a note of a state that did not come from Redis.
func noteOf(st limits.State) note {
	b := strconv.FormatInt(max(st.B, 0), 10)
	if st.Kind == limits.Rate || st.Kind == limits.Pace {
		switch st.B {
		case unused:
			b = "cold"
		case 0:
			b = "warm"
		default:
			b = formatTime(limits.Time(st.B))
		}
	}
	c := st.C
	if st.Kind != limits.Rate {
		c = 0
	}
	return note{text: fmt.Sprintf("0 0 0 %s %s %d - 0", formatTime(limits.Time(st.A)), b, c)}
}

func parseNote(kind limits.Kind, text string) (note, limits.State, error) {
	n, st := note{text: text}, limits.State{Kind: kind}
	f := strings.Split(text, " ")
	bad := fmt.Errorf("%w: %q", errAnswer, text)
	if len(f) != 8 || len(text) > maxNote { // the last two are for the scripts alone
		return n, st, bad
	}
	var errs [6]error
	var a limits.Time
	n.reset, errs[0] = strconv.ParseInt(f[0], 10, 64)
	n.epoch, errs[1] = strconv.ParseInt(f[1], 10, 64)
	n.seq, errs[2] = strconv.ParseInt(f[2], 10, 64)
	a, errs[3] = parseTime(f[3])
	st.A = int64(a)
	switch {
	case f[4] == "cold":
		st.B = unused
	case f[4] == "warm":
		st.B = 0
	case strings.Contains(f[4], "."):
		a, errs[4] = parseTime(f[4])
		st.B = int64(a)
	default:
		st.B, errs[4] = strconv.ParseInt(f[4], 10, 64)
	}
	st.C, errs[5] = strconv.ParseInt(f[5], 10, 64)
	if errors.Join(errs[:]...) != nil {
		return n, st, bad
	}
	if kind != limits.Rate {
		st.C = 0 // the scripts' own
	}
	return n, st, nil
}

// slotOf returns the slot of a key with a hash tag (Redis Cluster
// specification): CRC16 of what is in braces.
func slotOf(key string) uint16 {
	if i := strings.IndexByte(key, '{'); i >= 0 {
		if j := strings.IndexByte(key[i+1:], '}'); j > 0 {
			key = key[i+1 : i+1+j]
		}
	}
	var crc uint16
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc % 16384
}
