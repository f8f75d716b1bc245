package descriptors

// level is the rules of one depth: what the entry at that depth may be.
type level struct {
	keys     map[string]*branch
	wildKeys []wildKey // keys with wildcards of their own, in the order of the file
}

// branch is the rules of one key at one level.
type branch struct {
	values map[string]*node
	wild   patterns
	any    *node // the key alone
}

// wildKey is a rule whose key has wildcards. Its value may have them too.
type wildKey struct {
	key, value pattern
}

// node is one descriptor of a file.
type node struct {
	rule     *Rule
	children *level // nil where there are none
}

// Match returns the rule for a request's descriptor, or nil where no limit
// applies. Nothing is allocated and the cost does not depend on the number of
// rules. A nil Domain has no rules.
func (d *Domain) Match(entries []Entry) *Rule {
	if d == nil {
		return nil
	}
	at := &d.root
	for i, e := range entries {
		n := at.next(e)
		switch {
		case n == nil:
			return nil
		case i == len(entries)-1:
			return n.rule
		case n.children == nil:
			return nil
		}
		at = n.children
	}
	return nil
}

// next finds the descriptor that an entry falls under: exact, then wildcards in
// the order of the file, then the key alone.
func (l *level) next(e Entry) *node {
	b := l.keys[e.Key]
	var found *pattern
	if b != nil {
		if n := b.values[e.Value]; n != nil {
			return n
		}
		found = b.wild.match(e.Value)
	}
	for i := range l.wildKeys {
		w := &l.wildKeys[i]
		if found != nil && found.order < w.value.order {
			break
		}
		if w.key.matches(e.Key) && w.value.matches(e.Value) {
			found = &w.value
			break
		}
	}
	switch {
	case found != nil:
		return found.node
	case b != nil:
		return b.any
	}
	return nil
}

// add puts a descriptor into the level. The caller has made sure that it is the
// only one of its key and value; order grows through the files.
func (l *level) add(key, value string, order int, n *node) {
	if hasWildcard(key) {
		if value == "" {
			value = "*"
		}
		l.wildKeys = append(l.wildKeys, wildKey{newPattern(key, order, n), newPattern(value, order, n)})
		return
	}
	if l.keys == nil {
		l.keys = map[string]*branch{}
	}
	b := l.keys[key]
	if b == nil {
		b = &branch{}
		l.keys[key] = b
	}
	switch {
	case value == "":
		b.any = n
	case hasWildcard(value):
		b.wild.add(newPattern(value, order, n))
	default:
		if b.values == nil {
			b.values = map[string]*node{}
		}
		b.values[value] = n
	}
}
