package top

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Screen is where a picture is drawn.
type Screen struct {
	Width, Height int
	Rows          int // consumers at most; 0: as many as fit
	Colour        bool
}

// What a terminal is told, beside text. Live enters the alternate screen, hides
// the cursor and stops lines from wrapping; Leave undoes it, so that the terminal
// is as it was.
const (
	Live  = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	Leave = "\x1b[?7h\x1b[?25h\x1b[?1049l"

	home     = "\x1b[H"
	clearEnd = "\x1b[K"
	clearAll = "\x1b[J" // below the cursor
)

// The columns of numbers, and the least that a consumer's name is given.
const (
	numberWidth = 11
	nameWidth   = 8
)

// Frame returns the picture for a terminal, to be written at once. Every line is
// cleared behind its text and the rest of the screen below the last.
func (p *Picture) Frame(s Screen) []byte {
	var b strings.Builder
	b.WriteString(home)
	lines := p.lines(s)
	for i, l := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		if s.Colour && l.style != "" {
			b.WriteString("\x1b[" + l.style + "m" + l.text + "\x1b[0m")
		} else {
			b.WriteString(l.text)
		}
		if Width(l.text) < s.Width { // else the cursor still stands on the last cell
			b.WriteString(clearEnd)
		}
	}
	if len(lines) < s.Height {
		b.WriteString("\r\n" + clearAll)
	}
	return []byte(b.String())
}

// line is text with how it is shown.
type line struct{ text, style string }

// The styles, as SGR codes.
const (
	bold    = "1"
	faint   = "2"
	reverse = "7"
	red     = "31"
	yellow  = "33"
)

// lines are what fits the screen.
func (p *Picture) lines(s Screen) []line {
	head := fmt.Sprintf("tollgate top  %s  mode %s  default %s  by %s", p.Server, p.Mode, p.DefaultLimit, p.By)
	lines := []line{{Fit(head, s.Width), bold}}
	if p.Trouble != "" {
		lines = append(lines, line{Fit(p.Trouble, s.Width), red})
	}
	for _, note := range p.Notes {
		lines = append(lines, line{Fit(note, s.Width), yellow})
	}
	table := p.consumers
	if p.By == Refused {
		table = p.refused
	}
	lines = append(lines, line{})
	n := max(0, s.Height-len(lines)-2)
	if s.Rows > 0 {
		n = min(n, s.Rows)
	}
	lines = append(lines, table(s.Width, n)...)
	lines = append(lines, line{Fit("a: who is admitted  r: who is refused, by what, since when  q: quit", s.Width), faint})
	return lines[:min(len(lines), s.Height)]
}

// consumers are who is busiest.
func (p *Picture) consumers(width, n int) []line {
	lines := []line{{columns(width, "CONSUMER", "ADMITTED/S", "REFUSED/S", "ADMITTED", "REFUSED"), reverse}}
	for _, r := range p.Rows(n) {
		l := line{text: columns(width, r.Consumer, perSecond(r.AdmittedRate), perSecond(r.RefusedRate), count(r.Admitted), count(r.Refused))}
		if r.RefusedRate > 0 {
			l.style = red
		}
		lines = append(lines, l)
	}
	if len(p.rows) == 0 {
		lines = append(lines, line{text: Fit("nobody has called yet", width)})
	}
	return lines
}

// refused are whose refusals go on: by what, and since when.
func (p *Picture) refused(width, n int) []line {
	row := func(consumer, by string, numbers ...string) string {
		name := max(nameWidth, (width-len(numbers)*numberWidth)*2/5)
		if name+nameWidth > width {
			return pad(Fit(consumer, width), width)
		}
		return pad(Fit(consumer, name-1), name) + columns(width-name, by, numbers...)
	}
	lines := []line{{row("CONSUMER", "REFUSED BY", "REFUSED/S", "REFUSED", "SINCE"), reverse}}
	for _, r := range p.Refusals(n) {
		who := r.Consumer
		if who == "" {
			who = "(nobody known)"
		}
		l := line{text: row(who, r.By(), perSecond(r.Rate), count(uint64(r.Refused)), ago(p.at.Sub(r.Since)))}
		if r.Rate > 0 {
			l.style = red
		}
		lines = append(lines, l)
	}
	if len(p.refusals) == 0 {
		lines = append(lines, line{text: Fit("nobody is being refused", width)})
	}
	return lines
}

// ago writes how long something has lasted in its two largest units.
func ago(d time.Duration) string {
	d = max(d, 0).Truncate(time.Second)
	switch days := d / (24 * time.Hour); {
	case days > 0:
		return fmt.Sprintf("%dd%dh", days, d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// columns lays a row out; where the screen is too narrow, the last columns are
// left out.
func columns(width int, name string, numbers ...string) string {
	shown := min(len(numbers), max(0, (width-nameWidth)/numberWidth))
	rest := width - shown*numberWidth
	var b strings.Builder
	b.WriteString(pad(Fit(name, rest), rest))
	for _, n := range numbers[:shown] {
		fmt.Fprintf(&b, "%*s", numberWidth, n)
	}
	return b.String()
}

// count writes what has no room for all its digits as 11.5P.
func count(n uint64) string {
	if s := strconv.FormatUint(n, 10); len(s) < numberWidth {
		return s
	}
	f, unit := float64(n)/1e9, 0
	for ; f >= 1000; unit++ {
		f /= 1000
	}
	return fmt.Sprintf("%.1f%c", f, "GTPE"[unit])
}

func perSecond(rate float64) string {
	if rate < 100 {
		return strconv.FormatFloat(rate, 'f', 1, 64)
	}
	return strconv.FormatFloat(rate, 'f', 0, 64)
}

// Clean makes text harmless to a terminal: what is not shown, such as an escape,
// becomes a dot.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '·'
	}, s)
}

// Fit cleans text and cuts it to a width, with an ellipsis.
func Fit(s string, width int) string {
	s = Clean(s)
	if Width(s) <= width {
		return s
	}
	if width < 1 {
		return ""
	}
	used := 0
	for i, r := range s {
		if used += runeWidth(r); used > width-1 {
			return s[:i] + "…"
		}
	}
	return s
}

// Width is how many cells text takes.
func Width(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

// runeWidth knows what takes two cells well enough for names: East Asian
// scripts, full-width forms and emoji.
func runeWidth(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case r >= 0x1100 && r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf, r >= 0xac00 && r <= 0xd7a3,
		r >= 0xf900 && r <= 0xfaff, r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60, r >= 0x1f300 && r <= 0x1faff, r >= 0x20000 && r <= 0x3fffd:
		return 2
	}
	return 1
}

func pad(s string, width int) string { return s + strings.Repeat(" ", max(0, width-Width(s))) }
