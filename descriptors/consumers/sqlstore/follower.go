package sqlstore

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/limits"
)

// Source is a database as a [Follower] reads it. Calls come one at a time; each
// is bounded by its ctx. Any error counts as the source being down.
type Source interface {
	// Open prepares what the other calls need. It is called first, and again
	// after an error until it succeeds. An [ErrUnusable] ends the attempts at
	// the start.
	Open(ctx context.Context) error

	// Changes returns what changed since the last call. With the first call
	// begins what it tells of.
	Changes(ctx context.Context) (Changes, error)

	// Settings reads the settings that were changed.
	Settings(ctx context.Context) (Settings, error)

	// Page returns about n consumers behind the place after ("" is before the
	// first) and where the next page begins, "" at the end.
	Page(ctx context.Context, after string, n int) (rows []Row, next string, err error)

	// Rows returns those consumers of the ids that exist.
	Rows(ctx context.Context, ids []string) ([]Row, error)
}

// Row is a consumer as the database holds it, or why it cannot be read.
type Row struct {
	Consumer consumers.Consumer // its ID at least
	Err      error
}

// Changes is what happened in a database.
type Changes struct {
	IDs      []string // consumers that may be others now, or gone
	Settings bool     // settings may be others
	All      bool     // what happened cannot be told: read everything
}

// Options of a follower. Registry, Clock and Log must be set.
type Options struct {
	Registry *consumers.Registry
	Clock    *limits.Clock
	Log      *slog.Logger
	Poll     time.Duration // how often to ask for changes; 0 means 1 s
	FullPass time.Duration // how often everything is compared; 0 means 5 min

	// Changed is called when settings may be others, and when the consumers are
	// in force for the first time. It must not wait for the follower. Nil: nobody is told.
	Changed func()
}

func (o Options) withDefaults() Options {
	if o.Poll <= 0 {
		o.Poll = time.Second
	}
	if o.FullPass <= 0 {
		o.FullPass = 5 * time.Minute
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	return o
}

// What one call to the database may take.
const (
	callTimeout = 5 * time.Second
	pageTimeout = 30 * time.Second
)

// pageSize is how many consumers are read at a time.
const pageSize = 5000

// The wait after a failure doubles from the first to the last, and is shortened
// by up to a half, so that instances do not come back all at once.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// Follower keeps a registry like a database: everything once, then what
// changes, and now and then everything compared. Whatever happens to the
// database, the registry keeps what it knows; a single consumer that cannot be
// used stays as it was. Make one with [NewFollower], then call Run.
type Follower struct {
	o      Options
	source Source
	apply  applier
	wake   chan struct{}

	// Only Run uses these.
	open        bool
	dirty       map[string]struct{} // to be read again
	settingsDue bool
	nextPass    time.Time

	mu        sync.Mutex    // guards what follows
	pending   waiters       // wait for consumers to be read again
	refreshes []chan error  // wait for everything to be compared
	first     chan struct{} // closed after the first attempt
	status    Status
	settings  Settings
}

// waiters are those who wait for what they wrote to be in force.
type waiters struct {
	ids      []string
	settings bool
	done     []chan error
}

// NewFollower returns a follower of a source.
func NewFollower(s Source, o Options) *Follower {
	o = o.withDefaults()
	return &Follower{
		o: o, source: s, apply: newApplier(o), wake: make(chan struct{}, 1), first: make(chan struct{}),
		dirty: map[string]struct{}{}, settingsDue: true,
	}
}

// Run follows until ctx ends.
func (f *Follower) Run(ctx context.Context) {
	defer f.stop(ctx)
	first := sync.OnceFunc(func() { close(f.first) })
	for failures := 0; ctx.Err() == nil; {
		err := f.round(ctx)
		wait := f.o.Poll
		if err == nil {
			failures = 0
		} else {
			failures++
			f.open = false
			wait = retryAfter(failures, rand.Float64())
		}
		if ctx.Err() != nil {
			return
		}
		f.settle(err)
		first()
		if f.asked() {
			f.Wake() // who came during a pass may have been taken for one who told of a change
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-f.wake:
		}
		t.Stop()
	}
}

// asked reports whether somebody waits.
func (f *Follower) asked() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.pending.done)+len(f.refreshes) > 0
}

// stop answers who still waits.
func (f *Follower) stop(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, done := range append(f.pending.done, f.refreshes...) {
		done <- context.Cause(ctx)
	}
	f.pending, f.refreshes = waiters{}, nil
}

// retryAfter is how long to wait after so many failures in a row. random is
// from [0, 1).
func retryAfter(failures int, random float64) time.Duration {
	d := firstRetry << min(failures-1, 10)
	d = min(d, lastRetry)
	return d - time.Duration(random/2*float64(d))
}

// Wake makes the follower ask for changes now.
func (f *Follower) Wake() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Started returns once the consumers are in force, or the first attempt to get
// them failed; its error says why.
func (f *Follower) Started(ctx context.Context) error {
	select {
	case <-f.first:
		return f.Status().Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Written returns when the consumers of these ids have been read again and are
// in force; without ids it is the settings.
func (f *Follower) Written(ctx context.Context, ids ...string) error {
	done := make(chan error, 1)
	f.mu.Lock()
	f.pending.ids = append(f.pending.ids, ids...)
	f.pending.settings = f.pending.settings || len(ids) == 0
	f.pending.done = append(f.pending.done, done)
	f.mu.Unlock()
	return f.wait(ctx, done)
}

// Refresh compares everything now and returns when that is in force. Those who
// ask at the same time share one pass.
func (f *Follower) Refresh(ctx context.Context) error {
	done := make(chan error, 1)
	f.mu.Lock()
	f.refreshes = append(f.refreshes, done)
	f.mu.Unlock()
	return f.wait(ctx, done)
}

func (f *Follower) wait(ctx context.Context, done chan error) error {
	f.Wake()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// round brings the registry up to date once.
func (f *Follower) round(ctx context.Context) error {
	f.mu.Lock()
	pending, refreshes := f.pending, f.refreshes
	f.pending, f.refreshes = waiters{}, nil
	f.mu.Unlock()
	err := f.update(ctx, pending)
	for _, done := range pending.done {
		done <- err
	}
	if err == nil && (len(refreshes) > 0 || !time.Now().Before(f.nextPass)) {
		err = f.pass(ctx)
	}
	for _, done := range refreshes {
		done <- err
	}
	return err
}

// update reads what changed, and for those who wait what they wrote.
func (f *Follower) update(ctx context.Context, w waiters) error {
	if !f.open {
		if err := bounded(ctx, callTimeout, f.source.Open); err != nil {
			return err
		}
		f.open = true
	}
	for _, id := range w.ids {
		f.dirty[id] = struct{}{}
	}
	f.settingsDue = f.settingsDue || w.settings
	if err := f.changes(ctx); err != nil {
		return err
	}
	if !f.Status().Loaded {
		return f.load(ctx)
	}
	if f.settingsDue {
		if err := f.reset(ctx); err != nil {
			return err
		}
	}
	if len(f.dirty) == 0 {
		return nil
	}
	if len(f.apply.bad) <= pageSize {
		f.retryBad()
	}
	return f.reread(ctx)
}

// retryBad reads those again that could not be used: what stood in the way may
// have changed.
func (f *Follower) retryBad() {
	for id := range f.apply.bad {
		f.dirty[id] = struct{}{}
	}
}

// changes notes what changed; it is not lost where reading it fails later.
func (f *Follower) changes(ctx context.Context) error {
	return bounded(ctx, callTimeout, func(ctx context.Context) error {
		c, err := f.source.Changes(ctx)
		if err != nil {
			return err
		}
		for _, id := range c.IDs {
			f.dirty[id] = struct{}{}
		}
		f.settingsDue = f.settingsDue || c.Settings || c.All
		if c.All {
			f.nextPass = time.Time{}
		}
		f.count(func(s *Status) { s.Changes += uint64(len(c.IDs)) })
		return nil
	})
}

// reread reads the dirty ones and puts them in force.
func (f *Follower) reread(ctx context.Context) error {
	batch := make([]string, 0, min(len(f.dirty), pageSize))
	flush := func() error {
		return bounded(ctx, callTimeout, func(ctx context.Context) error {
			rows, err := f.source.Rows(ctx, batch)
			if err != nil {
				return err
			}
			f.apply.rows(rows, batch)
			for _, id := range batch {
				delete(f.dirty, id)
			}
			batch = batch[:0]
			return nil
		})
	}
	for id := range f.dirty {
		if batch = append(batch, id); len(batch) < pageSize {
			continue
		}
		if err := flush(); err != nil {
			return err
		}
	}
	if len(batch) == 0 {
		return nil
	}
	return flush()
}

// reset reads the settings.
func (f *Follower) reset(ctx context.Context) error {
	return bounded(ctx, callTimeout, func(ctx context.Context) error {
		settings, err := f.source.Settings(ctx)
		if err != nil {
			return err
		}
		f.settingsDue = false
		f.keep(settings)
		return nil
	})
}

func (f *Follower) keep(s Settings) {
	f.mu.Lock()
	same := f.settings.equal(s)
	f.settings = s
	f.mu.Unlock()
	if !same {
		f.o.Changed()
	}
}

// bounded calls f with a ctx that lasts at most that long.
func bounded(ctx context.Context, d time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d, fmt.Errorf("no answer within %s", d))
	defer cancel()
	err := f(ctx)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}
