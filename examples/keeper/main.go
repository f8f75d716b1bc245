// Keeper shows a disaster recovery: an operator that reads 500 secrets at once
// from an API that throttles, without Tollgate and with it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/tollgate-dev/tollgate/envoy/envoytest/keeper"
	"github.com/tollgate-dev/tollgate/envoy/envoytest/throttle"
)

// options are the flags.
type options struct {
	tollgate string
	config   string
	plot     string
	reads    int
	window   time.Duration
	until    time.Duration
	check    bool
}

func main() {
	var o options
	flag.StringVar(&o.tollgate, "tollgate", "../../bin/tollgate", "the Tollgate to run")
	flag.StringVar(&o.config, "config", "tollgate.yaml", "its configuration")
	flag.StringVar(&o.plot, "plot", "", "write an SVG plot to this file")
	flag.IntVar(&o.reads, "reads", 500, "secrets to read")
	flag.DurationVar(&o.window, "window", 10*time.Second, "Keeper's window; everything else is scaled with it")
	flag.DurationVar(&o.until, "until", time.Minute, "when to give up without Tollgate")
	flag.BoolVar(&o.check, "check", false, "fail unless nothing is throttled with Tollgate, and much without")
	flag.Parse()
	if err := run(context.Background(), o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "keeper:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) error {
	dir, err := os.MkdirTemp("", "tollgate-keeper-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ca, err := keeper.NewAuthority(dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "A Keeper that takes 100 calls, then none until it has been left alone for %v, longer with each violation.\n"+
		"%d secrets are read at once, by Keeper's own SDK; refused reads are tried again as External Secrets does.\n\n", o.window, o.reads)
	without, err := relive(ctx, o, ca, false)
	if err != nil {
		return err
	}
	with, err := relive(ctx, o, ca, true)
	if err != nil {
		return err
	}
	printTable(out, without, with)
	if o.plot != "" {
		names := []string{"without Tollgate", "with Tollgate"}
		svg := plot(map[string]result{names[0]: without, names[1]: with}, names)
		if err := os.WriteFile(o.plot, []byte(svg), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(out, "\nplot: %s\n", o.plot)
	}
	if !o.check {
		return nil
	}
	return check(without, with)
}

// relive runs the burst against a Keeper of its own.
func relive(ctx context.Context, o options, ca *keeper.Authority, protected bool) (r result, err error) {
	a, err := newAccount()
	if err != nil {
		return r, err
	}
	pair, _, _, err := ca.Issue(keeper.Host)
	if err != nil {
		return r, err
	}
	fake, err := keeper.Start(a, pair, throttle.Options{Model: throttle.IdleReset, N: 100, Window: o.window})
	if err != nil {
		return r, err
	}
	defer fake.Close()
	name, addr := keeper.Host, fake.Addr
	if protected {
		s, err := keeper.StartStack(ctx, o.tollgate, o.config, o.window, fake.Addr, ca)
		if err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, s.Stop()) }()
		name, addr = keeper.Alias, s.Addr
	}
	c, err := newClient(a, name, addr, ca.Pool)
	if err != nil {
		return r, err
	}
	defer c.transport.CloseIdleConnections()
	r = burst(c, o.reads, o.window/10, o.until)
	r.calls = fake.Calls()
	return r, nil
}

// check says what of the promise did not hold.
func check(without, with result) error {
	var errs []error
	for _, c := range []struct {
		ok   bool
		what string
	}{
		{with.other == nil, fmt.Sprintf("with Tollgate the SDK returned: %v", with.other)},
		{without.other == nil, fmt.Sprintf("without Tollgate the SDK returned: %v", without.other)},
		{with.throttled() == 0, fmt.Sprintf("with Tollgate %d calls were throttled, want none", with.throttled())},
		{with.refusals == 0, fmt.Sprintf("with Tollgate the SDK returned %d refusals, want none", with.refusals)},
		{with.succeeded == with.reads, fmt.Sprintf("with Tollgate %d of %d secrets were read", with.succeeded, with.reads)},
		{len(with.calls) == with.reads, fmt.Sprintf("with Tollgate %d calls for %d secrets, want one each", len(with.calls), with.reads)},
		{without.throttled() > without.reads/2, fmt.Sprintf("without Tollgate only %d calls were throttled: nothing was shown", without.throttled())},
	} {
		if !c.ok {
			errs = append(errs, errors.New(c.what))
		}
	}
	return errors.Join(errs...)
}
