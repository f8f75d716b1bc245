package redis

import (
	"errors"
	"strings"
	"testing"

	"github.com/tollgate-dev/tollgate/limits"
)

// FuzzNote: what a script says to remember is an error or a state that is
// written as it was read, and instants survive being written.
func FuzzNote(f *testing.F) {
	for _, text := range []string{
		"0 0 0 - warm 0 - 0", "1 2 3 1699920000.000000001 cold -1 - 5", "0 1699920000000000 7 -5.999999999 1699920000.5 0 g/1/2/-/warm 0",
		"0 0 0 - 9007199254740993 0 - 0", "0 0 0 1.1 x 0 - 0", "0 0 0 1.1 1 0 -", "-1 0 0 - 0 0 - 0", strings.Repeat("9", 2000) + " 0 0 - 0 0 - 0",
	} {
		f.Add(text, int64(len(text)))
	}
	f.Fuzz(func(t *testing.T, text string, at int64) {
		for _, kind := range []limits.Kind{limits.Rate, limits.Pace, limits.Quota, limits.Window} {
			n, st, err := parseNote(kind, text)
			if err != nil {
				if !errors.Is(err, errAnswer) {
					t.Fatalf("parseNote(%q): %v, want an answer that cannot be meant", text, err)
				}
				continue
			}
			if n.text != text || len(text) > maxNote || st.Kind != kind || n.after(&n) {
				t.Fatalf("parseNote(%q) = %+v, %+v", text, n, st)
			}
			written := noteOf(st)
			again, same, err := parseNote(kind, written.text)
			if err != nil || again.text != written.text {
				t.Fatalf("parseNote(%q), of %q: %v", written.text, text, err)
			}
			if st.B >= 0 && st.A >= longAgo && same.A != st.A {
				t.Fatalf("%q is written as %q: %+v, %+v", text, written.text, st, same)
			}
		}
		if now := limits.Time(at); now >= longAgo {
			if got, err := parseTime(formatTime(now)); err != nil || got != now {
				t.Fatalf("parseTime(%q) = %d, %v, want %d", formatTime(now), got, err, now)
			}
		}
	})
}
