package yamlfile

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Map is a mapping that remembers which of its keys were asked for.
type Map struct {
	node    Node
	entries []Entry
	asked   []string
}

// Entry is one key of a mapping with its value.
type Entry struct {
	Key   string
	At    Node // the key itself, for its position
	Value Node
}

// Map reads a mapping. Keys that are not plain text and keys that occur twice
// are problems. A merge key (<<) brings in the keys of other mappings that this
// one does not have.
func (n Node) Map() *Map {
	m := &Map{node: n}
	r := n.resolve()
	if r.n == nil || r.n.Kind != yaml.MappingNode {
		n.Errorf("want a mapping, got %s", n.describe())
		return m
	}
	lines := make(map[string]int, len(r.n.Content)/2)
	var merged []Node
	for i := 0; i+1 < len(r.n.Content); i += 2 {
		key := Node{doc: n.doc, n: r.n.Content[i]}
		value := Node{doc: n.doc, n: r.n.Content[i+1]}
		if key.n.Kind != yaml.ScalarNode || key.Null() {
			key.Errorf("want a key, got %s", key.describe())
			continue
		}
		name := key.n.Value
		if line, dup := lines[name]; dup {
			key.Errorf("%s: already given on line %d", name, line)
			continue
		}
		lines[name] = key.Line()
		if key.n.Tag == "!!merge" {
			merged = value.listOrOne()
			continue
		}
		m.entries = append(m.entries, Entry{Key: name, At: key, Value: value})
	}
	for _, source := range merged {
		for _, e := range source.Map().entries {
			if _, given := lines[e.Key]; !given {
				lines[e.Key] = e.At.Line()
				m.entries = append(m.entries, e)
			}
		}
	}
	return m
}

// listOrOne returns the elements of a list, or the value itself.
func (n Node) listOrOne() []Node {
	if n.IsList() {
		return n.List()
	}
	return []Node{n}
}

// Node returns the mapping itself, for problems that concern it as a whole.
func (m *Map) Node() Node {
	return m.node
}

// Get returns the value of a key; ok is false where it is absent or null.
func (m *Map) Get(key string) (value Node, ok bool) {
	m.asked = append(m.asked, key)
	for _, e := range m.entries {
		if e.Key == key {
			return e.Value, !e.Value.Null()
		}
	}
	return m.node, false
}

// Has reports whether the key is written at all, null or not.
func (m *Map) Has(key string) bool {
	m.asked = append(m.asked, key)
	return slices.ContainsFunc(m.entries, func(e Entry) bool { return e.Key == key })
}

// Entries returns every key with its value, in the order of the file, and
// counts all of them as asked for. It is for mappings whose keys are data.
func (m *Map) Entries() []Entry {
	for _, e := range m.entries {
		m.asked = append(m.asked, e.Key)
	}
	return m.entries
}

// At returns a key's value whether or not it is null, else the mapping, for a
// problem that a reader finds later. It does not count as asking.
func (m *Map) At(key string) Node {
	for _, e := range m.entries {
		if e.Key == key {
			return e.Value
		}
	}
	return m.node
}

// Done reports every key that was not asked for. It suggests the known key that
// looks most alike, or names all of them.
func (m *Map) Done() {
	slices.Sort(m.asked)
	m.asked = slices.Compact(m.asked)
	for _, e := range m.entries {
		if _, asked := slices.BinarySearch(m.asked, e.Key); asked {
			continue
		}
		if near := nearest(e.Key, m.asked); near != "" {
			e.At.Errorf("unknown key %q: did you mean %q?", e.Key, near)
			continue
		}
		e.At.Errorf("unknown key %q: want one of %s", e.Key, strings.Join(m.asked, ", "))
	}
}

// Each calls the function of every key of a mapping that is present, with its
// value, in no order. Every other key is a problem.
func (n Node) Each(keys map[string]func(Node)) {
	m := n.Map()
	for key, read := range keys {
		if v, ok := m.Get(key); ok {
			read(v)
		}
	}
	m.Done()
}

// nearest returns the word within two edits of s, or "".
func nearest(s string, words []string) string {
	best, distance := "", 3
	for _, w := range words {
		if d := edits(s, w); d < distance && d < len(w) {
			best, distance = w, d
		}
	}
	return best
}

// edits is the Levenshtein distance of two short words.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// Misplaced reports each of the given keys that the mapping has and whose place
// is elsewhere; where says that place. [Map.Done] then does not report it again.
func (m *Map) Misplaced(where string, keys ...string) {
	m.entries = slices.DeleteFunc(slices.Clone(m.entries), func(e Entry) bool {
		misplaced := slices.Contains(keys, e.Key)
		if misplaced {
			e.At.Errorf("%s %s", e.Key, where)
		}
		return misplaced
	})
}
