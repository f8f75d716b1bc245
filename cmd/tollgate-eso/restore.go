package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/allowance"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/manifests"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/restore"
	"github.com/tollgate-dev/tollgate/internal/admin"
	"github.com/tollgate-dev/tollgate/internal/commandline"
)

// errNotRestored is what restore ends with when some have failed. They are listed.
var errNotRestored = errors.New("not all were restored")

// restoreFlags are the flags of restore.
type restoreFlags struct {
	files []string
	selectFlags
	server string
	run    string
	resume bool
	dryRun bool
	settle time.Duration
	poll   time.Duration
}

// newRestore is the verb for the day after a disaster.
func newRestore() *cobra.Command {
	var f restoreFlags
	c := &cobra.Command{
		Use:   "restore",
		Short: "Refresh all external secrets of an upstream, no faster than it allows",
		Long: `Makes External Secrets refresh all external secrets of an upstream's stores, as
many at a time as Tollgate says that the upstream allows, and creates those of
manifests that are missing, with their namespaces and stores. The annotation
tollgate.dev/restore-priority, a whole number, puts some before others, and what
makes a Secret that a store or a template needs comes before those who need it. A
wave begins when all of the one before have synced or failed.

What is done is kept in the cluster, so that a run that was killed goes on with
--resume, or with the same --run. Needs Tollgate's admin API; its token is in
TOLLGATE_ADMIN_TOKEN.

Exit code: 0 all restored, 1 some failed (they are listed), 2 the input or the
command line is wrong.`,
		Example: `  tollgate-eso restore --dry-run
  tollgate-eso restore --server http://tollgate:8080
  tollgate-eso restore -f manifests/ --run 2026-11-24   # again after a kill: it goes on
  tollgate-eso restore --store ClusterSecretStore/keeper`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.do(cmd) },
	}
	flags := c.Flags()
	flags.StringSliceVarP(&f.files, "file", "f", nil, "manifests of external secrets, stores and namespaces to create where missing: a file, a folder, or - for standard input")
	f.add(c)
	flags.StringVar(&f.server, "server", "http://127.0.0.1:8080", "Tollgate's admin API")
	flags.StringVar(&f.run, "run", "", "the run's name; one that exists goes on (default: a new one by the time)")
	flags.BoolVar(&f.resume, "resume", false, "go on with the last run")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the waves and how long they take, and do nothing")
	flags.DurationVar(&f.settle, "settle", restore.DefaultSettle, "how long to wait for an external secret when others overtake it, and for a failed one to recover")
	flags.DurationVar(&f.poll, "poll", 200*time.Millisecond, "how often to ask Tollgate")
	return c
}

func (f *restoreFlags) do(cmd *cobra.Command) error {
	switch {
	case f.resume && f.run != "":
		return commandline.Wrongf("--resume goes on with the last run, --run with that of a name: want one of them")
	case f.settle <= 0 || f.poll <= 0:
		return commandline.Wrongf("--settle and --poll: want durations above 0")
	}
	selector, err := f.selector()
	if err != nil {
		return err
	}
	objects, err := manifests.Read(f.files, cmd.InOrStdin())
	if err != nil {
		return commandline.Wrong(err)
	}
	given, err := restore.NewManifests(objects)
	if err != nil {
		return commandline.Wrong(err)
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	kubernetes, err := restoreCluster(ctx)
	if err != nil {
		return err
	}
	if err := f.name(ctx, kubernetes); err != nil {
		return err
	}
	targets, skipped, err := kubernetes.Load(ctx, selector, f.run, given)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	for _, s := range skipped {
		fmt.Fprintf(out, "skipped: %s: %s: External Secrets refreshes it only when its Secret is missing\n", s.Key, s.Reason)
	}
	watcher := allowance.New(allowance.Options{Log: slog.New(slog.DiscardHandler), // what is wrong is shown
		Client: &admin.Client{Server: f.server, Token: os.Getenv("TOLLGATE_ADMIN_TOKEN")}})
	if err := watcher.Refresh(ctx); err != nil {
		return err
	}
	state, ok := watcher.State(f.upstream)
	if !ok {
		return commandline.Wrongf("--upstream %s: Tollgate has none of this id", f.upstream)
	}
	printWaves(out, state, targets)
	if f.dryRun {
		return nil
	}
	created, err := kubernetes.Prepare(ctx, given)
	if err != nil {
		return err
	}
	if created > 0 {
		fmt.Fprintf(out, "created %d namespaces and stores\n", created)
	}
	go func() { _ = watcher.Run(ctx) }() // ends with ctx; it tells of a pause at once
	return f.restore(ctx, cmd, restore.Options{Cluster: kubernetes, Allowance: watcher, Upstream: f.upstream, Run: f.run,
		Settle: f.settle, Poll: f.poll}, targets)
}

// name sets the run's name where no flag has.
func (f *restoreFlags) name(ctx context.Context, k restore.Kubernetes) error {
	switch {
	case f.resume:
		last, err := k.LastRun(ctx)
		if err != nil {
			return err
		}
		if last == "" {
			return commandline.Wrongf("--resume: no external secret of this cluster bears the mark of a run")
		}
		f.run = last
	case f.run == "":
		f.run = time.Now().UTC().Format("20060102T150405.000Z")
	}
	return nil
}

// restore runs, shows how far it is, and tells how it ended.
func (f *restoreFlags) restore(ctx context.Context, cmd *cobra.Command, o restore.Options, targets []*restore.Target) error {
	out, began := cmd.OutOrStdout(), time.Now()
	end := ""
	o.Show = restore.Lines(out, 10*time.Second)
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		o.Show, end = restore.Bar(out), "\n"
	}
	fmt.Fprintf(out, "run %s; to go on after a kill: tollgate-eso restore --run %s, with the other flags as they are\n", f.run, f.run)
	failed, err := restore.Run(ctx, o, targets)
	fmt.Fprint(out, end)
	if err != nil {
		return fmt.Errorf("run %s is not finished: %w", f.run, err)
	}
	for _, one := range failed {
		fmt.Fprintf(out, "failed: %v: %s\n", one.Target, strings.TrimSpace(one.Why))
	}
	if len(failed) > 0 {
		return errNotRestored
	}
	fmt.Fprintf(out, "all restored in %v\n", time.Since(began).Round(time.Second))
	return nil
}

// printWaves prints what is going to be done, and how long it takes at the least.
func printWaves(w io.Writer, s allowance.State, targets []*restore.Target) {
	calls, objects := 0, 0
	for i, wave := range restore.Waves(targets) {
		members, missing, done := 0, 0, 0
		for _, t := range wave.Targets {
			members += len(t.Members)
			if t.Create != nil {
				missing++
			}
			if !t.Sent.IsZero() {
				done++
			}
		}
		objects, calls = objects+members, calls+wave.Calls()
		fmt.Fprintf(w, "wave %d, priority %d: %d external secrets, %d calls", i+1, wave.Priority, members, wave.Calls())
		if wave.Depth > 0 {
			fmt.Fprint(w, ", which need Secrets of those before")
		}
		for _, more := range []struct {
			n    int
			what string
		}{{missing, "to create"}, {done, "sent by this run already"}} {
			if more.n > 0 {
				fmt.Fprintf(w, ", %d %s", more.n, more.what)
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "%d external secrets, %d calls; the upstream is %s and allows %d now: at least %v, and what the calls themselves take\n",
		objects, calls, s.State, s.Calls(), restore.Estimate(time.Now(), s, calls).Round(time.Second))
}

// restoreCluster reads the cluster that kubectl would use: external secrets from a
// cache, which ends with ctx, and all else as it is asked for.
func restoreCluster(ctx context.Context) (restore.Kubernetes, error) {
	var k restore.Kubernetes
	cluster, err := findCluster()
	if err != nil {
		return k, err
	}
	cluster.QPS, cluster.Burst = 100, 200
	known, err := scheme()
	if err != nil {
		return k, err
	}
	read, err := cache.New(cluster, cache.Options{Scheme: known, DefaultTransform: cache.TransformStripManagedFields()})
	if err != nil {
		return k, err
	}
	live := []client.Object{&eso.SecretStore{}, &eso.ClusterSecretStore{}}
	k.Client, err = client.New(cluster, client.Options{Scheme: known, Cache: &client.CacheOptions{Reader: read, DisableFor: live}})
	if err != nil {
		return k, err
	}
	if _, err := read.GetInformer(ctx, &eso.ExternalSecret{}, cache.BlockUntilSynced(false)); err != nil {
		return k, fmt.Errorf("external secrets: are External Secrets' CRDs installed? %w", err)
	}
	go func() { _ = read.Start(ctx) }() // ends with ctx
	if !read.WaitForCacheSync(ctx) {
		return k, fmt.Errorf("external secrets: not read: %w", ctx.Err())
	}
	return k, nil
}
