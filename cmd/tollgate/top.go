package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/admin"
	"github.com/tollgate-dev/tollgate/internal/commandline"
	"github.com/tollgate-dev/tollgate/internal/top"
)

// topAtMost is how many consumers are asked for, to be sorted here by what
// happens now.
const topAtMost = 1000

type topFlags struct {
	by    string
	n     int
	once  bool
	every time.Duration
}

func newTop() *cobra.Command {
	var f topFlags
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show the busiest and the most refused consumers, live",
		Long: `Top shows who is admitted and refused, busiest first, until q or Ctrl-C. Where
it does not write to a terminal, and with --once, it prints one table.`,
		Example: `  tollgate top
  tollgate top --once --by refused -n 5`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	r := remoteFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := r.ready(); err != nil {
			return err
		}
		switch {
		case f.by != string(top.Admitted) && f.by != string(top.Refused):
			return commandline.Wrongf("--by %q: want admitted or refused", f.by)
		case f.n < 1:
			return commandline.Wrongf("-n %d: want at least 1", f.n)
		case f.every < 100*time.Millisecond:
			return commandline.Wrongf("--every %s: want at least 100ms", f.every)
		}
		if f.once || r.output == "json" || !isTerminal(os.Stdout) || os.Getenv("TERM") == "dumb" {
			return r.topOnce(cmd, f)
		}
		return r.topLive(cmd.Context(), f)
	}
	cmd.Flags().StringVar(&f.by, "by", "admitted", "sort by `admitted` or refused")
	completeFlag(cmd, "by", "admitted", "refused")
	cmd.Flags().IntVarP(&f.n, "number", "n", 20, "how many consumers at most")
	cmd.Flags().BoolVar(&f.once, "once", false, "print one table and end")
	cmd.Flags().DurationVar(&f.every, "every", time.Second, "how often the picture is drawn anew")
	return cmd
}

func (r *remote) topOnce(cmd *cobra.Command, f topFlags) error {
	all, err := r.Top(cmd.Context(), f.by, f.n)
	if err != nil {
		return err
	}
	rows := [][]string{{"CONSUMER", "ADMITTED", "REFUSED"}}
	for _, t := range all.Top {
		rows = append(rows, []string{t.Consumer, strconv.FormatUint(t.Admitted, 10), strconv.FormatUint(t.Refused, 10)})
	}
	return r.print(cmd, all, rows)
}

// topLive draws until it is told to end, and leaves the terminal as it was.
func (r *remote) topLive(ctx context.Context, f topFlags) (err error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	p := &top.Picture{Server: r.Address(), By: top.Order(f.by)}
	if err := r.look(ctx, p); err != nil {
		return err
	}
	keys := make(chan byte)
	if fd := int(os.Stdin.Fd()); term.IsTerminal(fd) {
		// Raw: keys come at once and are not shown; Ctrl-C is a key too.
		state, err := term.MakeRaw(fd)
		if err != nil {
			return err
		}
		defer func() { _ = term.Restore(fd, state) }() // nothing can be done about it
		go readKeys(ctx, os.Stdin, keys)
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	if _, err := os.Stdout.WriteString(top.Live); err != nil {
		return err
	}
	defer func() {
		if _, e := os.Stdout.WriteString(top.Leave); err == nil {
			err = e
		}
	}()
	tick := time.NewTicker(f.every)
	defer tick.Stop()
	for {
		if err := draw(p, f.n); err != nil {
			return err
		}
		select {
		case <-tick.C:
			p.Trouble = ""
			if err := r.look(ctx, p); err != nil && ctx.Err() == nil {
				p.Trouble = "not up to date: " + err.Error()
			}
		case <-resized:
		case key := <-keys:
			switch key {
			case 'q', 3, 4: // Ctrl-C, Ctrl-D
				return nil
			case 'a':
				p.Sort(top.Admitted)
			case 'r':
				p.Sort(top.Refused)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// draw writes one frame, at once.
func draw(p *top.Picture, n int) error {
	width, height, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		return err
	}
	_, colourless := os.LookupEnv("NO_COLOR")
	_, err = os.Stdout.Write(p.Frame(top.Screen{Width: width, Height: height, Rows: n, Colour: !colourless}))
	return err
}

// readKeys ends with the first key after ctx: the program ends before.
func readKeys(ctx context.Context, r io.Reader, keys chan<- byte) {
	var b [1]byte
	for {
		if _, err := r.Read(b[:]); err != nil {
			return
		}
		select {
		case keys <- b[0]:
		case <-ctx.Done():
			return
		}
	}
}

// look asks the server.
func (r *remote) look(ctx context.Context, p *top.Picture) error {
	settings, err := r.Settings(ctx)
	if err != nil {
		return err
	}
	config, err := r.Config(ctx)
	if err != nil {
		return err
	}
	all, err := r.Top(ctx, string(p.By), topAtMost)
	if err != nil {
		return err
	}
	p.Mode, p.DefaultLimit = value(settings.Mode), value(settings.DefaultLimit)
	ups, err := r.Upstreams(ctx)
	if err != nil {
		return err
	}
	p.Notes = notes(time.Now(), config, ups)
	refusals, err := r.Refusals(ctx, topAtMost)
	if err != nil {
		return err
	}
	p.Update(time.Now(), all.Top, refusals.Refusals)
	return nil
}

// notes are what somebody should look at: a bad configuration, and upstreams
// that are not open, with what is left of their pause.
func notes(now time.Time, c admin.Config, ups []admin.Upstream) []string {
	var all []string
	if c.LastError != nil {
		all = append(all, "the configuration on disk is not in force: "+*c.LastError)
	}
	for _, u := range ups {
		if u.State == upstreams.Open {
			continue
		}
		note := fmt.Sprintf("upstream %s: %s", u.ID, u.State)
		if u.Until != nil && u.Until.After(now) {
			note += fmt.Sprintf(" for %s more", u.Until.Sub(now).Round(time.Second))
		}
		if u.Violations > 0 {
			note += fmt.Sprintf(", %d violations in a row: %s", u.Violations, u.Reason)
		}
		if u.Waiting > 0 {
			note += fmt.Sprintf(", %d waiting", u.Waiting)
		}
		all = append(all, note)
	}
	return all
}
