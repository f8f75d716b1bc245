package allowance

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/admin"
)

// State is how an upstream stands.
type State struct {
	admin.Upstream
	At time.Time // when Tollgate said so
}

// Paused reports whether nothing is to go out: in a pause, and until the one
// call that asks whether it is over was answered.
func (s State) Paused() bool {
	return s.State == upstreams.Frozen || s.State == upstreams.Probing
}

// Calls returns how many calls would be let out at once: the least that remains
// of the limits and of the budget; none in a pause, or while others wait.
func (s State) Calls() int {
	if s.Paused() || s.State == upstreams.Held || s.Waiting > 0 {
		return 0
	}
	const unlimited = 1 << 20
	n := int64(unlimited)
	for _, l := range s.Limits {
		n = min(n, l.Remaining)
	}
	for _, b := range s.Budget {
		n = min(n, b.Calls-b.Used)
	}
	return int(max(0, n))
}

// Options of a watcher.
type Options struct {
	Client *admin.Client
	Log    *slog.Logger
	Poll   time.Duration // how often states are read when no event comes; 0: 30 s
	Retry  time.Duration // how long to wait after an error; 0: 2 s
}

// Watcher follows Tollgate. Its methods are safe for concurrent use.
type Watcher struct {
	o Options

	mu      sync.Mutex
	states  map[string]State
	err     error         // why Tollgate cannot be asked; nil: it can
	since   time.Time     // of err
	changed chan struct{} // closed by the next change
}

// New returns a watcher that knows nothing until [Watcher.Run] or
// [Watcher.Refresh] has asked.
func New(o Options) *Watcher {
	if o.Poll <= 0 {
		o.Poll = 30 * time.Second
	}
	if o.Retry <= 0 {
		o.Retry = 2 * time.Second
	}
	return &Watcher{o: o, states: map[string]State{}, changed: make(chan struct{})}
}

// Changed returns a channel that is closed when something is other than when it
// was called.
func (w *Watcher) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

// State returns what is known of an upstream; false: nothing.
func (w *Watcher) State(id string) (State, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.states[id]
	return s, ok
}

// Unreachable returns since when Tollgate cannot be asked, and why; nil: it can.
func (w *Watcher) Unreachable() (since time.Time, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.since, w.err
}

// Refresh asks Tollgate now.
func (w *Watcher) Refresh(ctx context.Context) error {
	asked := time.Now()
	list, err := w.o.Client.Upstreams(ctx)
	if err != nil {
		return fmt.Errorf("upstreams: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	states := map[string]State{}
	for _, u := range list {
		states[u.ID] = State{Upstream: u, At: asked}
		if known, ok := w.states[u.ID]; ok && known.At.After(asked) {
			states[u.ID] = known // an event came while Tollgate was asked
		}
	}
	w.states = states
	w.tell()
	return nil
}

// tell wakes who waits for a change. It is called with mu held.
func (w *Watcher) tell() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// Run follows Tollgate until ctx ends. It comes back from whatever goes wrong.
func (w *Watcher) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := w.follow(ctx)
		if ctx.Err() != nil {
			break
		}
		w.o.Log.Warn("tollgate", "err", err)
		w.failed(err)
		select {
		case <-time.After(w.o.Retry):
		case <-ctx.Done():
		}
	}
	return nil
}

func (w *Watcher) failed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.since = time.Now()
	}
	w.err = err
	w.tell()
}

func (w *Watcher) reached() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err, w.since = nil, time.Time{}
}

// follow takes in events until there is an error. What happened before the
// stream was open is in the answer that is read after it.
func (w *Watcher) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := w.o.Client.Follow(ctx, "")
	if err != nil {
		return err
	}
	defer stream.Close()
	if err := w.Refresh(ctx); err != nil {
		return err
	}
	w.reached()
	polled := make(chan error, 1)
	go func() {
		polled <- w.poll(ctx)
		cancel()
	}()
	for err == nil {
		var e admin.Event
		if e, err = stream.Next(); err == nil {
			err = w.take(ctx, e)
		}
	}
	cancel()
	if pollErr := <-polled; pollErr != nil {
		return pollErr
	}
	return err
}

// poll reads the states now and then: what they say of limits changes without
// an event.
func (w *Watcher) poll(ctx context.Context) error {
	t := time.NewTicker(w.o.Poll)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := w.Refresh(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// take brings a state up to date. Events that may mean other upstreams, or that
// some were missed, make Tollgate be asked.
func (w *Watcher) take(ctx context.Context, e admin.Event) error {
	switch e.Kind {
	case "upstream.state":
		var u admin.Upstream
		if err := json.Unmarshal(e.After, &u); err != nil {
			return fmt.Errorf("event %s: %w", e.ID, err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.states[u.ID] = State{Upstream: u, At: time.Now()}
		w.tell()
	case "upstream.reset", "config.reload", "events.missed":
		return w.Refresh(ctx)
	default:
		if strings.HasPrefix(e.Kind, "upstream.") {
			return w.Refresh(ctx)
		}
	}
	return nil
}
