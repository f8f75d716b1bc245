package consumers

import (
	"math"

	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
	"github.com/tollgate-dev/tollgate/limits"
)

// ReadLimits reads a list of limits, or one limit in its short form; `none` is
// unlimited. An empty list is a problem: leave the key out or write none.
func ReadLimits(n yamlfile.Node) Limits {
	nodes := []yamlfile.Node{n}
	if n.IsList() {
		if nodes = n.List(); len(nodes) == 0 {
			n.Errorf("an empty list: leave the key out for the default, or write none for unlimited")
			return nil
		}
	}
	var ls Limits
	for _, e := range nodes {
		l, limited := ReadLimit(e)
		switch {
		case limited:
			ls = append(ls, l)
		case len(nodes) > 1:
			e.Errorf("none beside other limits: want it as the only one")
		default:
			return Limits{}
		}
	}
	return ls
}

// ReadLimit reads one limit: a mapping, or 100/s for short. It returns false
// for `none`.
func ReadLimit(n yamlfile.Node) (Limit, bool) {
	if !n.IsMap() {
		s, ok := n.Scalar()
		if s == none {
			return Limit{}, false
		}
		if !ok {
			return Limit{}, true // reported
		}
		t := limitText{Rate: s}
		return t.limit(func(_, format string, args ...any) { report(n, format, args...) }), true
	}
	m := n.Map()
	l, limited := ReadLimitMap(m)
	m.Done()
	return l, limited
}

// ReadLimitMap reads the keys of a limit from a mapping that may hold further
// ones; the caller asks for those and calls Done. It returns false for `none`.
func ReadLimitMap(m *yamlfile.Map) (Limit, bool) {
	var t limitText
	nodes := map[string]yamlfile.Node{"": m.Node()}
	text := func(key string, to *string) {
		if n, ok := m.Get(key); ok {
			nodes[key] = n
			*to = n.String()
		}
	}
	for _, k := range kinds {
		text(string(k), t.value(k))
	}
	text("name", &t.Name)
	text("per", &t.Per)
	text("mode", &t.Mode)
	text("on_error", &t.OnError)
	text("max_wait", &t.MaxWait)
	text("timezone", &t.Timezone)
	if n, ok := m.Get("burst"); ok {
		nodes["burst"] = n
		t.Burst = n.Int(1, limits.MaxN)
	}
	if n, ok := m.Get("warm_up"); ok {
		nodes["warm_up"] = n
		t.WarmUp = readWarmUpText(n)
	}
	if t.unlimited() {
		return Limit{}, false
	}
	return t.limit(func(key, format string, args ...any) { report(nodes[key], format, args...) }), true
}

// ReadWarmUp reads a mapping of grace, ramp and grace_limit over the given
// defaults, or `none`.
func ReadWarmUp(n yamlfile.Node, defaults limits.WarmUp) limits.WarmUp {
	if !n.IsMap() {
		n.OneOf(none)
		return limits.WarmUp{}
	}
	w := defaults
	m := n.Map()
	if v, ok := m.Get("grace"); ok {
		w.Grace = v.Duration()
	}
	if v, ok := m.Get("ramp"); ok {
		w.Ramp = v.Duration()
	}
	if v, ok := m.Get("grace_limit"); ok {
		w.GraceLimit = v.Int(0, math.MaxInt32)
	}
	m.Done()
	return w
}

func readWarmUpText(n yamlfile.Node) *warmUpText {
	w := ReadWarmUp(n, limits.WarmUp{})
	return &warmUpText{Grace: w.Grace.String(), GraceLimit: w.GraceLimit, Ramp: w.Ramp.String()}
}

func report(n yamlfile.Node, format string, args ...any) {
	var ps problems
	ps.add("", format, args...)
	n.Errorf("%s", ps.err())
}
