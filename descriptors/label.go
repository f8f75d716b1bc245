package descriptors

import (
	"slices"
	"sync"
	"unicode/utf8"
)

// Bounds on labels made of request values. Once a label is known it stays, as a
// metric with it would, so these hold for the life of a Book.
const (
	maxLabels      = 1000
	maxLabelLength = 200
)

// labels are the texts that requests have added to rules' paths.
type labels struct {
	mu    sync.RWMutex
	known map[string]string
}

// Label returns the rule's path for metrics, with the request's values where
// detailed_metric or value_to_metric asks for them: values that share a counter
// (share_threshold) stay the pattern. A Book makes at most 1,000 labels so, of at
// most 200 bytes each, first come first served; beyond that, and for all other
// rules, it is the Path. Nothing is allocated for a label seen before.
func (b *Book) Label(rule *Rule, entries []Entry) string {
	if rule.parts == nil || len(entries) != len(rule.parts) {
		return rule.Path
	}
	var room [maxLabelLength]byte
	text := room[:0]
	for i, p := range rule.parts {
		if i > 0 {
			text = append(text, '.')
		}
		if p.value && len(entries[i].Key)+len(entries[i].Value) > maxLabelLength {
			return rule.Path
		}
		text = p.append(text, entries[i])
	}
	if len(text) > maxLabelLength || !utf8.Valid(text) {
		return rule.Path
	}
	if known, ok := b.labels.find(text); ok {
		return known
	}
	return b.labels.add(string(text), rule.Path)
}

// append adds what a label shows of a level.
func (p part) append(text []byte, e Entry) []byte {
	switch {
	case !p.value:
		return append(text, p.text...)
	case e.Value == "":
		return append(text, e.Key...)
	}
	return append(append(append(text, e.Key...), '_'), e.Value...)
}

// Levels returns the parts of a label that [Book.Label] has returned for these
// entries. A dot in one of them is not one between two.
func (r *Rule) Levels(label string, entries []Entry) []string {
	switch {
	case r.levels == nil:
		return []string{label} // of an override
	case r.parts == nil || label == r.Path:
		return slices.Clone(r.levels)
	}
	levels := make([]string, len(r.parts))
	for i, p := range r.parts {
		levels[i] = string(p.append(nil, entries[i]))
	}
	return levels
}

func (l *labels) find(text []byte) (known string, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	known, ok = l.known[string(text)]
	return known, ok
}

// add returns text, or other where there is no room for another label.
func (l *labels) add(text, other string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known, ok := l.known[text]; ok {
		return known
	}
	if len(l.known) >= maxLabels {
		return other
	}
	if l.known == nil {
		l.known = map[string]string{}
	}
	l.known[text] = text
	return text
}
