package top_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/internal/telemetry"
	"github.com/tollgate-dev/tollgate/internal/top"
)

var (
	noon  = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	steer = regexp.MustCompile(`\x1b\[[?0-9;]*[A-Za-z]`)
)

func shown(p *top.Picture, s top.Screen) []string {
	text := strings.TrimSuffix(string(p.Frame(s)), "\r\n\x1b[J")
	return strings.Split(steer.ReplaceAllString(text, ""), "\r\n")
}

func names(rows []top.Row) (all []string) {
	for _, r := range rows {
		all = append(all, r.Consumer)
	}
	return all
}

func TestRatesAndOrder(t *testing.T) {
	p := top.Picture{By: top.Admitted}
	p.Update(noon, []telemetry.Tally{{Consumer: "old", Admitted: 5000, Refused: 9}, {Consumer: "b", Admitted: 10}, {Consumer: "a", Admitted: 10}}, nil)
	if diff := cmp.Diff([]string{"old", "a", "b"}, names(p.Rows(9))); diff != "" {
		t.Errorf("at first, by what was (-want +got):\n%s", diff)
	}
	p.Update(noon.Add(2*time.Second), []telemetry.Tally{{Consumer: "old", Admitted: 5000, Refused: 9}, {Consumer: "b", Admitted: 110, Refused: 20}, {Consumer: "a", Admitted: 210}, {Consumer: "new", Admitted: 1}}, nil)
	if diff := cmp.Diff([]string{"a", "b", "old", "new"}, names(p.Rows(9))); diff != "" {
		t.Errorf("by what is (-want +got):\n%s", diff)
	}
	if a := p.Rows(1)[0]; a.AdmittedRate != 100 {
		t.Errorf("200 in 2 s are %v/s, want 100", a.AdmittedRate)
	}
	p.Sort(top.Refused)
	if diff := cmp.Diff([]string{"b", "old"}, names(p.Rows(2))); diff != "" {
		t.Errorf("by refused (-want +got):\n%s", diff)
	}
	p.Update(noon.Add(4*time.Second), []telemetry.Tally{{Consumer: "a", Admitted: 3}}, nil) // the server was started anew
	if a := p.Rows(1)[0]; a.AdmittedRate != 0 {
		t.Errorf("after a restart: %v/s, want 0", a.AdmittedRate)
	}
}

// TestFitsTheScreen: whatever its size, and whatever consumers are called.
func TestFitsTheScreen(t *testing.T) {
	p := top.Picture{Server: "http://127.0.0.1:8080", By: top.Admitted, Mode: "enforce", DefaultLimit: "20/s",
		Notes: []string{"configuration: " + strings.Repeat("bad ", 100)}, Trouble: "no server\x1b[2J"}
	tallies := []telemetry.Tally{{Consumer: strings.Repeat("long", 40), Admitted: 1 << 60, Refused: 1 << 60}, {Consumer: "中文名字很长很长很长很长很长很长很长很长", Refused: 3}, {Consumer: "evil\x1b]0;title\a"}}
	for i := range 100 {
		tallies = append(tallies, telemetry.Tally{Consumer: fmt.Sprint("c", i)})
	}
	p.Update(noon, tallies, nil)
	for _, s := range []top.Screen{{Width: 80, Height: 24, Colour: true}, {Width: 40, Height: 10}, {Width: 12, Height: 3}, {Width: 1, Height: 1}, {Width: 200, Height: 300}} {
		text := string(p.Frame(s))
		if strings.Contains(text, "\x1b[2J") || strings.Contains(text, "\a") || strings.Contains(text, "\x1b]") {
			t.Errorf("%dx%d: the frame clears the screen, or a name steers the terminal: %q", s.Width, s.Height, text)
		}
		if coloured := strings.Contains(text, "\x1b[1m"); coloured != s.Colour {
			t.Errorf("%dx%d: coloured is %v, want %v", s.Width, s.Height, coloured, s.Colour)
		}
		lines := shown(&p, s)
		if len(lines) > s.Height {
			t.Errorf("%dx%d: %d lines", s.Width, s.Height, len(lines))
		}
		for _, line := range lines {
			if top.Width(line) > s.Width {
				t.Errorf("%dx%d: %q is %d wide", s.Width, s.Height, line, top.Width(line))
			}
		}
	}
	if lines := shown(&p, top.Screen{Width: 80, Height: 24, Rows: 3}); len(lines) != 1+1+1+2+3+1 {
		t.Errorf("3 rows make %d lines:\n%s", len(lines), strings.Join(lines, "\n"))
	}
}

// TestWhoIsRefused: by what, since when, and whether an upstream is the reason.
func TestWhoIsRefused(t *testing.T) {
	at := func(refused int64) []telemetry.Refusal {
		return []telemetry.Refusal{
			{Consumer: "billing", Reason: "rate-limited", Limit: "rate-5-s", Since: noon.Add(-61 * time.Minute), Refused: 90_000},
			{Consumer: "sync", Reason: "rate-limited", Limit: "fixed-window-5-m", Rate: "5/m", Rule: "path_/v1/orders", Since: noon.Add(-9 * time.Second), Refused: refused},
			{Reason: "upstream-pressure", Upstream: "keeper", Since: noon.Add(-50 * time.Hour), Refused: 7},
			{Reason: "invalid-credentials", Since: noon.Add(-90 * time.Second), Refused: 3},
		}
	}
	p := top.Picture{By: top.Refused}
	p.Update(noon, nil, at(20))
	p.Update(noon.Add(2*time.Second), nil, at(60))
	want := []string{
		"CONSUMER          REFUSED BY                     REFUSED/S    REFUSED      SINCE",
		"sync              rule path_/v1/orders 5/m            20.0         60        11s",
		"billing           limit rate-5-s                       0.0      90000       1h1m",
		"(nobody known)    pause of upstream keeper             0.0          7       2d2h",
		"(nobody known)    invalid-credentials                  0.0          3      1m32s",
	}
	got := shown(&p, top.Screen{Width: 80, Height: 24})[2:]
	if diff := cmp.Diff(want, got[:min(len(got), len(want))]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFit(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"billing", 7, "billing"}, {"billing", 6, "billi…"}, {"billing", 1, "…"}, {"billing", 0, ""},
		{"中文", 4, "中文"}, {"中文", 3, "中…"}, {"a\nb\x1b", 9, "a·b·"},
	} {
		if got := top.Fit(c.text, c.width); got != c.want {
			t.Errorf("Fit(%q, %d) = %q, want %q", c.text, c.width, got, c.want)
		}
	}
}
