package restore

import (
	"cmp"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Order puts targets in the order in which they are restored: the higher priority
// first and, of one priority, what makes a Secret before what needs it. Who makes a
// Secret that a target of a higher priority needs gets that priority.
func Order(all []*Target) {
	makers := map[client.ObjectKey][]*Target{}
	for _, t := range all {
		for _, s := range t.Makes {
			makers[s] = append(makers[s], t)
		}
	}
	o := orderer{needs: map[*Target][]*Target{}, entered: map[*Target]bool{}}
	for _, t := range all {
		for _, s := range t.Needs {
			for _, m := range makers[s] {
				if m != t && !slices.Contains(o.needs[t], m) {
					o.needs[t] = append(o.needs[t], m)
				}
			}
		}
	}
	for _, t := range all {
		o.raise(t)
	}
	for _, t := range all {
		o.enter(t)
	}
	slices.SortFunc(all, func(a, b *Target) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.depth, b.depth),
			cmp.Compare(a.Key.Namespace, b.Key.Namespace), cmp.Compare(a.Key.Name, b.Key.Name))
	})
}

// orderer knows which targets have to come before which.
type orderer struct {
	needs   map[*Target][]*Target
	entered map[*Target]bool
}

// raise gives what a target needs the target's priority.
func (o *orderer) raise(t *Target) {
	for _, m := range o.needs[t] {
		if m.Priority < t.Priority {
			m.Priority = t.Priority
			o.raise(m)
		}
	}
}

// enter sets a target's depth. Of a circle, who is asked for first comes last: none
// of its order helps.
func (o *orderer) enter(t *Target) {
	if o.entered[t] {
		return
	}
	o.entered[t] = true
	for _, m := range o.needs[t] {
		if o.enter(m); m.Priority == t.Priority {
			t.depth = max(t.depth, m.depth+1)
		}
	}
}

// Wave is targets that may be restored at the same time.
type Wave struct {
	Priority int
	Depth    int // how many waves of the same priority it needs
	Targets  []*Target
}

// Waves splits targets, in order.
func Waves(all []*Target) []Wave {
	var waves []Wave
	for _, t := range all {
		if len(waves) == 0 || waves[len(waves)-1].Priority != t.Priority || waves[len(waves)-1].Depth != t.depth {
			waves = append(waves, Wave{Priority: t.Priority, Depth: t.depth})
		}
		w := &waves[len(waves)-1]
		w.Targets = append(w.Targets, t)
	}
	return waves
}

// Calls returns how many calls the targets make.
func (w Wave) Calls() int {
	n := 0
	for _, t := range w.Targets {
		n += t.Calls
	}
	return n
}
