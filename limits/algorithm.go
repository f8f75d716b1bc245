package limits

import "fmt"

// Algorithm is the pure mathematics of a kind: functions of a state and an
// instant that touch nothing else. The limiter brings all the rest: that
// decisions are atomic, that the limit can change, that the clock cannot run
// backwards, that the state survives. The methods are called concurrently.
//
// A state's A and B are the algorithm's own, under the law that [State] has:
// larger means that no more is admitted. C is the limiter's, and of no use here.
type Algorithm interface {
	// Start returns the state of a limiter of which the share used, from 0 for
	// nothing to 1 for all, is used up at now.
	Start(now Time, used float64) State
	// Peek decides about n, at least 1, in a state that is not changed.
	Peek(st State, now Time, n int64) Decision
	// Take returns the state after n were taken that Peek admits.
	Take(st State, now Time, n int64) State
	// Refund returns the state after n were given back that were taken at now.
	Refund(st State, now Time, n int64) State
	// Used returns what Start would be given: the share used at now.
	Used(st State, now Time) float64
}

// Kinds names algorithms beside the built-in kinds, which it cannot replace.
// The nil map is the built-in kinds alone.
type Kinds map[Kind]func(Limit) (Algorithm, error)

// Compile is the function of that name, for these kinds too. Burst and WarmUp
// are the algorithm's to use and to check. A limit of 0 blocks whatever the kind.
func (k Kinds) Compile(l Limit) (*Spec, error) {
	given, own := l, k[l.Kind]
	if err := l.check(l.Kind.builtIn() || own != nil); err != nil {
		return nil, err
	}
	e, err := l.engine(own)
	if err != nil {
		return nil, err
	}
	if l.Name == "" {
		l.Name = l.name()
	}
	s := &Spec{limit: l, engine: e, given: given, kinds: k}
	s.base = s
	return s, nil
}

func (k Kind) builtIn() bool {
	switch k {
	case Rate, Window, Quota, Pace, IdleReset, FixedWindow, SmoothBursty, SmoothWarmingUp:
		return true
	}
	return false
}

// engine returns what decides, and fills in what the limit leaves open.
func (l *Limit) engine(own func(Limit) (Algorithm, error)) (engine, error) {
	switch l.Kind {
	case Rate, Pace:
		return l.rate()
	}
	if l.N == 0 {
		return blocked{}, nil
	}
	switch l.Kind {
	case Window:
		return newWindow(l.N, l.Period), nil
	case FixedWindow:
		return newCounter(l.N, grid(l.Period)), nil
	case Quota:
		return newCounter(l.N, newDates(l.Calendar, l.Location)), nil
	case IdleReset:
		return newIdleReset(l.N, l.Period), nil
	case SmoothBursty, SmoothWarmingUp:
		s, err := newSmooth(*l)
		if err != nil {
			return nil, err
		}
		return &tickets{*s}, nil
	}
	a, err := own(*l)
	if err != nil {
		return nil, fmt.Errorf("kind %q: %w", l.Kind, err)
	}
	return &machine{a}, nil
}
