package demo

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tollgate-dev/tollgate/internal/telemetry"
)

// How often the picture is drawn anew, and how often a line is written where
// there is no terminal.
const (
	frameEvery = 500 * time.Millisecond
	lineEvery  = 5 * time.Second
)

// watch shows who is admitted and refused until ctx ends, which is no error.
func (d *demo) watch(ctx context.Context) error {
	p := picture{people: d.people, began: time.Now()}
	every, show := lineEvery, p.line
	if d.o.Live {
		every, show = frameEvery, p.frame
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			p.update(d.server.Top().Busiest(len(d.people)*2), time.Now())
			if _, err := d.o.Out.Write(show()); err != nil {
				return err
			}
		case err := <-d.server.Failed():
			return fmt.Errorf("tollgate ended: %w", err)
		case <-d.envoy.Done():
			return d.envoyEnded(ctx)
		case <-ctx.Done():
			if d.o.Live {
				return nil // the last frame stays: the moment since says nothing about rates
			}
			p.update(d.server.Top().Busiest(len(d.people)*2), time.Now())
			_, err := d.o.Out.Write(show())
			return err
		}
	}
}

// envoyEnded tells an Envoy that died from one that Ctrl-C reached first: a
// terminal sends it to both.
func (d *demo) envoyEnded(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(500 * time.Millisecond):
		return fmt.Errorf("the demo's Envoy ended by itself:\n%s", d.envoy.Log())
	}
}

// picture is what is shown: totals, and rates since the last update.
type picture struct {
	people []person
	began  time.Time
	at     time.Time
	rows   map[string]row
	drawn  bool
}

type row struct {
	telemetry.Tally
	admittedRate, refusedRate float64 // a second
}

func (p *picture) update(tallies []telemetry.Tally, now time.Time) {
	since := now.Sub(p.at).Seconds()
	if p.at.IsZero() {
		since = now.Sub(p.began).Seconds()
	}
	rows := map[string]row{}
	for _, t := range tallies {
		was := p.rows[t.Consumer]
		rows[t.Consumer] = row{t, float64(t.Admitted-was.Admitted) / since, float64(t.Refused-was.Refused) / since}
	}
	p.rows, p.at = rows, now
}

// line is the picture for a log.
func (p *picture) line() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%4.0fs", p.at.Sub(p.began).Seconds())
	for _, who := range p.people {
		r := p.rows[who.id]
		fmt.Fprintf(&b, "  %s (%s): %d admitted, %d refused", who.id, who.limit, r.Admitted, r.Refused)
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// barWidth is the longest bar; one mark is a request a second.
const barWidth = 24

// frame is the picture for a terminal. It is one write over the last frame, each
// line cleared to its end, so that nothing flickers.
func (p *picture) frame() []byte {
	const clear = "\x1b[K\n"
	var b bytes.Buffer
	if p.drawn {
		fmt.Fprintf(&b, "\x1b[%dA", len(p.people)+2)
	}
	p.drawn = true
	fmt.Fprintf(&b, "\r%-10s %7s  %-*s %10s %10s"+clear, "consumer", "limit", barWidth, "a second: admitted | refused", "admitted", "refused")
	for _, who := range p.people {
		r := p.rows[who.id]
		admitted := mark(r.admittedRate, barWidth)
		refused := mark(r.refusedRate, barWidth+4-admitted)
		bar := fmt.Sprintf("\x1b[32m%s\x1b[31m%s\x1b[0m%s", strings.Repeat("█", admitted), strings.Repeat("░", refused),
			strings.Repeat(" ", barWidth+4-admitted-refused))
		fmt.Fprintf(&b, "%-10s %7s  %s %10d %10d"+clear, who.id, who.limit, bar, r.Admitted, r.Refused)
	}
	fmt.Fprintf(&b, "%.0f s; Ctrl-C ends"+clear, p.at.Sub(p.began).Seconds())
	return b.Bytes()
}

// mark is the length of a bar for a rate.
func mark(rate float64, longest int) int {
	return max(0, min(int(rate+0.5), longest))
}
