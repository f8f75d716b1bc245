package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A reload, by what it changes in the configuration.
var reloads = []struct {
	name     string
	from, to string // text of the configuration; it is put back afterwards
}{
	{name: "none"},
	{"as it is", "level: warn", "level: warn"},
	{"another default limit", "limits: {", "limits: {default: 7/s, "},
	{"another limit of all", "ramp: 0s", "ramp: 1s"},
	{"a grace for all", "grace: 0s", "grace: 1s"}, // of which the store is told as each begins
}

// reloader measures what callers notice of reloads.
type reloader struct {
	many
	config  string // the file
	http    string // where metrics are
	service *service
}

// run measures, in rounds, calls without and with a reload in their midst. Each
// begins when the one before is in force and the server still, and each round
// takes them in another order, so that what is left of one is not another's.
func (r reloader) run(w io.Writer, target, listener string) error {
	text, err := os.ReadFile(r.config)
	if err != nil {
		return err
	}
	seen, took := make([][]figures, len(reloads)), make([][]time.Duration, len(reloads))
	for range r.rounds {
		for i := range seen { // appended to below, so that rounds stay side by side
			seen[i] = append(seen[i], figures{})
		}
		for _, i := range rand.Perm(len(reloads)) {
			changed := bytes.Replace(text, []byte(reloads[i].from), []byte(reloads[i].to), 1)
			if reloads[i].name == "none" {
				changed = nil
			}
			f, d, err := r.measure(target, changed)
			if err == nil && changed != nil {
				took[i] = append(took[i], d)
				_, err = r.reload(text)
			}
			if err != nil {
				return fmt.Errorf("reload %s: %w", reloads[i].name, err)
			}
			seen[i][len(seen[i])-1] = f
		}
	}
	return r.report(w, listener, seen, took)
}

// measure drives the server while a configuration, if there is one, is reloaded,
// and returns how long that took.
func (r reloader) measure(target string, changed []byte) (f figures, took time.Duration, err error) {
	sources, err := sourcesOf(calls["check"], r.count, r.load.Connections)
	if err != nil {
		return f, 0, err
	}
	still([]*service{r.service}, reloadWithin)
	done := make(chan error, 1)
	counting := false
	f, err = measure(target, calls["check"], r.load, sources, func() (usage, error) {
		if !counting && changed != nil {
			time.AfterFunc(r.load.Run/3, func() {
				var err error
				took, err = r.reload(changed)
				done <- err
			})
		}
		counting = true
		return r.service.usage()
	})
	if counting && changed != nil {
		err = errors.Join(err, <-done)
	}
	return f, took, err
}

// reload has the server read a configuration, and returns after how long it is
// in force.
func (r reloader) reload(text []byte) (time.Duration, error) {
	next := r.config + ".next"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return 0, err
	}
	if err := os.Rename(next, r.config); err != nil { // nobody reads half of it
		return 0, err
	}
	begin := time.Now()
	if err := r.service.processes[0].cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return 0, err
	}
	for time.Since(begin) < reloadWithin {
		time.Sleep(50 * time.Millisecond)
		at, err := r.reloaded()
		if err != nil {
			return 0, err
		}
		if at.After(begin) {
			return time.Since(begin), nil
		}
	}
	return 0, fmt.Errorf("not in force after %v: see the log of the server:\n%s", reloadWithin, r.service.processes[0].output.String())
}

// reloadWithin is how long a reload may take before it is given up.
const reloadWithin = time.Minute

// reloaded asks when the configuration was read that is in force.
func (r reloader) reloaded() (at time.Time, err error) {
	const metric = "tollgate_config_last_reload_success_timestamp_seconds "
	page, err := http.Get("http://" + r.http + "/metrics")
	if err != nil {
		return at, err
	}
	defer page.Body.Close()
	for lines := bufio.NewScanner(page.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), metric); ok {
			seconds, err := strconv.ParseFloat(text, 64)
			return time.UnixMicro(int64(seconds * 1e6)), err
		}
	}
	return at, errors.New("no " + metric + "in /metrics")
}

func (r reloader) report(w io.Writer, listener string, seen [][]figures, took [][]time.Duration) (failed error) {
	for i, change := range reloads {
		f := median(seen[i])
		step := ratio(seen[i], seen[0], p99Of)
		fmt.Fprintf(w, "%-8s %.0f/s, reload: %-22s failed %d, p99 %6d µs (sent late %5d), of that without %.2f, in force after %4.1f s   goal 0, %.2f\n",
			listener+",", r.rate, change.name, f.failed, f.p99.Microseconds(), f.late.Microseconds(), step, mid(took[i], time.Duration.Seconds), stepWithin)
		if f.failed > 0 || step > stepWithin {
			failed = errors.Join(failed, fmt.Errorf("%s: reload %s: %d failed, step %.2f", listener, change.name, f.failed, step))
		}
	}
	return failed
}
