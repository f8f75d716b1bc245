package limits

import "fmt"

func (k Kind) builtIn() bool {
	switch k {
	case Rate, Window, Quota, Pace, IdleReset, FixedWindow, SmoothBursty, SmoothWarmingUp:
		return true
	}
	return false
}

// Algorithm is a kind of limit of the user's own.
type Algorithm interface{}

// Kinds names algorithms beside the built-in kinds. The nil map is the built-in
// kinds alone.
type Kinds map[Kind]func(Limit) (Algorithm, error)

// Compile is the function of that name, for these kinds too.
func (k Kinds) Compile(l Limit) (*Spec, error) {
	own := k[l.Kind]
	if err := l.check(l.Kind.builtIn() || own != nil); err != nil {
		return nil, err
	}
	if l.Name == "" {
		l.Name = l.name()
	}
	e, err := l.engine()
	if err != nil {
		return nil, err
	}
	return &Spec{limit: l, engine: e}, nil
}

func (l *Limit) engine() (engine, error) {
	switch l.Kind {
	case Rate, Pace:
		return l.rate()
	}
	return nil, fmt.Errorf("kind %q is not there yet", l.Kind)
}
