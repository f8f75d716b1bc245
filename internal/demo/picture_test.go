package demo_test

import (
	"strings"
	"testing"

	"github.com/tollgate-dev/tollgate/internal/demo"
	"github.com/tollgate-dev/tollgate/internal/telemetry"
)

func TestFrame(t *testing.T) {
	first, second := demo.Frames(
		[]telemetry.Tally{{Consumer: "bob", Admitted: 5, Refused: 2}},
		[]telemetry.Tally{{Consumer: "bob", Admitted: 8, Refused: 6}, {Consumer: "alice", Admitted: 1000}})
	if strings.Contains(first, "\x1b[5A") {
		t.Errorf("the first frame moves up:\n%q", first)
	}
	if !strings.HasPrefix(second, "\x1b[5A\r") {
		t.Errorf("the second frame is not drawn over the first:\n%q", second)
	}
	for _, want := range []string{
		"bob            5/s  \x1b[32m███\x1b[31m░░░░\x1b[0m",
		"       8          6\x1b[K\n",
		"alice         20/s  \x1b[32m" + strings.Repeat("█", 24) + "\x1b[31m\x1b[0m    ",
	} {
		if !strings.Contains(second, want) {
			t.Errorf("no %q in\n%s", want, second)
		}
	}
	for line := range strings.Lines(second) {
		if !strings.HasSuffix(line, "\x1b[K\n") {
			t.Errorf("a line is not cleared to its end: %q", line)
		}
	}
}
