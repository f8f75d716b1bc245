package sqlstore

import (
	"context"
	"hash/maphash"
	"runtime/debug"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
)

// large is from how many consumers on memory that a pass used is given back.
const large = 100_000

// load fills the empty registry. Consumers that cannot be used are left out.
func (f *Follower) load(ctx context.Context) error {
	var settings Settings
	err := bounded(ctx, callTimeout, func(ctx context.Context) (err error) {
		settings, err = f.source.Settings(ctx)
		return err
	})
	if err != nil {
		return err
	}
	unreadable := consumers.Problems{}
	bad, err := f.o.Registry.LoadGood(f.o.Clock.Now(), func(yield func(consumers.Consumer, error) bool) {
		err := f.pages(ctx, func(rows []Row) bool {
			for i := range rows {
				if rows[i].Err != nil {
					unreadable = append(unreadable, consumers.Problem{Consumer: rows[i].Consumer.ID, Message: rows[i].Err.Error()})
					continue
				}
				if !yield(rows[i].Consumer, nil) {
					return false
				}
			}
			return true
		})
		if err != nil {
			yield(consumers.Consumer{}, err)
		}
	})
	if err != nil {
		return err
	}
	for _, p := range append(unreadable, bad...) {
		f.apply.refuse(p)
	}
	f.settingsDue = false
	f.nextPass = time.Now().Add(f.o.FullPass)
	n, _ := f.o.Registry.Len()
	if n > large {
		debug.FreeOSMemory() // loading left more garbage than will come again soon
	}
	f.count(func(s *Status) { s.Loaded = true })
	f.keep(settings)
	f.o.Changed()
	f.o.Log.Info("consumers loaded", "consumers", n, "unusable", len(f.apply.bad))
	return nil
}

// pages reads everything, until each returns false. Between pages others may
// be served: what a page holds is put in force before the next is read.
func (f *Follower) pages(ctx context.Context, each func([]Row) bool) error {
	for after, more := "", true; more; {
		err := bounded(ctx, pageTimeout, func(ctx context.Context) error {
			rows, next, err := f.source.Page(ctx, after, pageSize)
			if err == nil {
				more = each(rows) && next != ""
				after = next
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// pass compares everything with the registry. It finds what no change told of:
// rows that were written past the triggers, and what a database lost when
// another took its place.
func (f *Follower) pass(ctx context.Context) error {
	f.nextPass = time.Now().Add(f.o.FullPass)
	if err := f.reset(ctx); err != nil {
		return err
	}
	seed, seen := maphash.MakeSeed(), map[uint64]struct{}{}
	err := f.pages(ctx, func(rows []Row) bool {
		f.apply.rows(rows, nil)
		for i := range rows {
			seen[maphash.String(seed, rows[i].Consumer.ID)] = struct{}{}
		}
		f.serve(ctx)
		return ctx.Err() == nil
	})
	if err != nil {
		return err
	}
	for id := range f.o.Registry.IDs() {
		if _, ok := seen[maphash.String(seed, id)]; !ok {
			f.dirty[id] = struct{}{} // gone, or added meanwhile
		}
	}
	f.retryBad()
	return f.reread(ctx)
}

// serve lets those who wrote meanwhile not wait for the end of a pass. An error
// is theirs; the pass meets it by itself.
func (f *Follower) serve(ctx context.Context) {
	f.mu.Lock()
	pending := f.pending
	f.pending = waiters{}
	f.mu.Unlock()
	select {
	case <-f.wake:
	default:
		if len(pending.done) == 0 {
			return
		}
	}
	err := f.update(ctx, pending)
	for _, done := range pending.done {
		done <- err
	}
}
