package descriptors

import "strings"

// pattern is a text with wildcards: * stands for any text, the empty one
// included.
type pattern struct {
	affix
	middle []string // between the first and the last wildcard, to be found in this order
	order  int      // its place in the files
	node   *node
}

// affix is what a text must begin and end with, without overlap.
type affix struct{ prefix, suffix string }

func hasWildcard(s string) bool {
	return strings.Contains(s, "*")
}

// newPattern splits s at its wildcards. Without one it matches s only.
func newPattern(s string, order int, n *node) pattern {
	parts := strings.Split(s, "*")
	p := pattern{order: order, node: n}
	if len(parts) == 1 {
		p.prefix, p.middle = s, nil
		return p
	}
	p.prefix, p.suffix = parts[0], parts[len(parts)-1]
	p.middle = append([]string{}, parts[1:len(parts)-1]...) // not nil: there is a wildcard
	return p
}

func (p *pattern) matches(s string) bool {
	if p.middle == nil {
		return s == p.prefix
	}
	return len(s) >= len(p.prefix)+len(p.suffix) && strings.HasPrefix(s, p.prefix) && strings.HasSuffix(s, p.suffix) &&
		p.between(s)
}

// between reports whether the middle parts occur in order between the affixes,
// which s is known to have. Taking the first occurrence of each is enough.
func (p *pattern) between(s string) bool {
	s = s[len(p.prefix) : len(s)-len(p.suffix)]
	for _, part := range p.middle {
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
	return true
}

// patterns is a set of patterns that finds the first in order without trying
// all of them: those with the same lengths of beginning and end are found by
// both in one look-up.
type patterns struct {
	shapes []shape // in the order of their first patterns
}

type shape struct {
	prefix, suffix int // lengths
	first          int // the lowest order
	by             map[affix][]*pattern
}

// add takes patterns in ascending order.
func (ps *patterns) add(p pattern) {
	for i := range ps.shapes {
		if s := &ps.shapes[i]; s.prefix == len(p.prefix) && s.suffix == len(p.suffix) {
			s.by[p.affix] = append(s.by[p.affix], &p)
			return
		}
	}
	ps.shapes = append(ps.shapes, shape{len(p.prefix), len(p.suffix), p.order, map[affix][]*pattern{p.affix: {&p}}})
}

// match returns the first pattern that s matches, or nil.
func (ps *patterns) match(s string) *pattern {
	var best *pattern
	for i := range ps.shapes {
		shape := &ps.shapes[i]
		if best != nil && best.order < shape.first {
			break
		}
		if len(s) < shape.prefix+shape.suffix {
			continue
		}
		for _, p := range shape.by[affix{s[:shape.prefix], s[len(s)-shape.suffix:]}] {
			if best != nil && best.order < p.order {
				break
			}
			if p.between(s) {
				best = p
				break
			}
		}
	}
	return best
}
