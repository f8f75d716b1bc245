package plan

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/tollgate-dev/tollgate/limits"
)

// Text writes a report for people.
func (r *Report) Text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	line("allowed", "%s", r.Allowance)
	if r.Batch < unlimited {
		line("", "%d calls together, every %v", r.Batch, r.Pitch.Round(time.Millisecond))
	}
	line("objects", "%d", len(r.Objects))
	line("calls a day", "%.0f", r.CallsPerDay)
	line("calls a month", "%.0f (31 days)", r.CallsPerMonth)
	if r.Allowance.Price > 0 {
		line("cost a month", "%.2f", r.Cost)
	}
	line("peak", "%d calls if all refresh at once, %d in the plan", r.Peak, r.PlannedPeak)
	if r.Smallest > 0 {
		line("refreshInterval", "%s is the smallest that is safe for all", limits.FormatDuration(r.Smallest))
	}
	line("plan", "%d waves", len(r.Waves))
	if err := t.Flush(); err != nil {
		return err
	}
	for _, o := range r.Failing {
		fmt.Fprintf(w, "failing: %s: %s\n", o, o.Failing)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "does not fit: %s\n", p)
	}
	if r.Fits() {
		fmt.Fprintln(w, "fits")
	}
	return nil
}

// document is a report for programs.
type document struct {
	Fits            bool              `json:"fits"`
	Problems        []string          `json:"problems"`
	Notes           []string          `json:"notes"`
	Allowed         string            `json:"allowed"`
	Batch           int64             `json:"batch"`
	BatchEvery      string            `json:"batch_every"`
	Objects         int               `json:"objects"`
	CallsPerDay     float64           `json:"calls_per_day"`
	CallsPerMonth   float64           `json:"calls_per_month"`
	CostPerMonth    float64           `json:"cost_per_month,omitempty"`
	Peak            int64             `json:"peak"`
	PlannedPeak     int64             `json:"planned_peak"`
	RefreshInterval string            `json:"smallest_refresh_interval,omitempty"`
	Failing         []failingDocument `json:"failing"`
	FailingPerDay   float64           `json:"failing_calls_per_day"`
	Waves           []waveDocument    `json:"waves"`
}

type failingDocument struct {
	Object
	Reason string `json:"reason"`
}

type waveDocument struct {
	Offset  string           `json:"offset"`
	Calls   int64            `json:"calls"`
	Objects []placedDocument `json:"objects"`
}

type placedDocument struct {
	Object
	RefreshInterval string `json:"refresh_interval"`
}

func (r *Report) document() document {
	d := document{
		Fits: r.Fits(), Problems: append([]string{}, r.Problems...), Notes: append([]string{}, r.Notes...), Allowed: r.Allowance.String(),
		Batch: r.Batch, BatchEvery: r.Pitch.String(), Objects: len(r.Objects), CallsPerDay: r.CallsPerDay, CallsPerMonth: r.CallsPerMonth,
		CostPerMonth: r.Cost, Peak: r.Peak, PlannedPeak: r.PlannedPeak, Failing: []failingDocument{}, FailingPerDay: r.FailingPerDay, Waves: []waveDocument{},
	}
	if r.Smallest > 0 {
		d.RefreshInterval = limits.FormatDuration(r.Smallest)
	}
	for _, o := range r.Failing {
		d.Failing = append(d.Failing, failingDocument{o, o.Failing})
	}
	for _, w := range r.Waves {
		one := waveDocument{Offset: w.Offset.String(), Calls: w.Calls}
		for _, o := range w.Objects {
			one.Objects = append(one.Objects, placedDocument{o.Object, limits.FormatDuration(o.Every)})
		}
		d.Waves = append(d.Waves, one)
	}
	return d
}

// JSON writes a report for programs.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r.document())
}

// YAML writes what JSON does.
func (r *Report) YAML(w io.Writer) error {
	b, err := yaml.Marshal(r.document())
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// Shell writes the plan as commands: each wave's objects get their interval and
// are refreshed, then the shell waits for the next wave. Intervals count from a
// refresh, so that the waves stay apart.
func (r *Report) Shell(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "#!/bin/sh\n# %d waves, %v in all. It may be stopped, and run again.\nset -eu\n", len(r.Waves), r.lasts())
	var at time.Duration
	for i, wave := range r.Waves {
		if pause := wave.Offset - at; pause > 0 {
			fmt.Fprintf(&b, "sleep %.3f\n", pause.Seconds())
			at = wave.Offset
		}
		fmt.Fprintf(&b, "# wave %d: %d calls\n", i+1, wave.Calls)
		for _, o := range wave.Objects {
			patch := fmt.Sprintf(`{"metadata":{"annotations":{"force-sync":"'"$(date +%%s)"'"}},"spec":{"refreshInterval":"%s"}}`, limits.FormatDuration(o.Every))
			fmt.Fprintf(&b, "kubectl patch %s -n %s %s --type merge -p '%s'\n", strings.ToLower(o.Kind), quote(o.Namespace), quote(o.Name), patch)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) lasts() time.Duration {
	if len(r.Waves) == 0 {
		return 0
	}
	return r.Waves[len(r.Waves)-1].Offset.Round(time.Second)
}

// quote makes a word of the shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
