package sqlstore

import (
	"errors"
	"time"
)

// ErrUnusable says that a database cannot be used as it is, and that trying
// again is of no use until somebody changed it.
var ErrUnusable = errors.New("the database cannot be used")

// Status is how a source is doing.
type Status struct {
	Loaded  bool      // its consumers have been in force once
	Up      bool      // the last attempt to read it succeeded
	Err     error     // why it is not up
	Since   time.Time // when it came up or went down
	Synced  time.Time // when the registry last was like the source
	Errors  uint64    // attempts that failed
	Changes uint64    // changes of consumers that it told of
	Bad     int       // consumers that cannot be used as they stand
}

// Status returns how the source is doing.
func (f *Follower) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

func (f *Follower) count(change func(*Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.status)
}

// settle notes how an attempt went, and tells of a change of state.
func (f *Follower) settle(err error) {
	now := time.Now()
	var was, is Status
	f.count(func(s *Status) {
		was = *s
		s.Up, s.Err, s.Bad = err == nil, err, len(f.apply.bad)
		if s.Up != was.Up || s.Since.IsZero() {
			s.Since = now
		}
		if err != nil {
			s.Errors++
		} else {
			s.Synced = now
		}
		is = *s
	})
	switch {
	case is.Up && !was.Up && !was.Since.IsZero():
		f.o.Log.Info("the source of the consumers is back", "down", now.Sub(was.Since).Round(time.Millisecond).String())
		f.nextPass = now.Add(min(f.o.FullPass, reconcileAfter)) // another database may have taken its place
	case !is.Up && (was.Up || was.Since.IsZero()):
		f.o.Log.Error("the source of the consumers is down, trying again; decisions go on with what is known", "known", is.Loaded, "err", err)
	}
}

// reconcileAfter is how long after an outage everything is compared.
const reconcileAfter = 10 * time.Second
