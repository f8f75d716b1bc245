package webhook

import (
	"fmt"
	"strconv"
	"strings"
)

// Path is where in a JSON document a value stands: a part of JSONPath, RFC 9535.
// The zero value is nowhere.
type Path struct {
	steps []step
}

// step is a member's name, or an index where name is empty; -1 is every element.
type step struct {
	name  string
	index int
}

// every is the index of [*].
const every = -1

// ParsePath reads a path such as $.event.records[*].uid or $['audit event'].
func ParsePath(s string) (Path, error) {
	rest, ok := strings.CutPrefix(s, "$")
	if !ok {
		return Path{}, fmt.Errorf("path %q: want one that begins with $, as $.record_uid", s)
	}
	var p Path
	for rest != "" {
		var next step
		var err error
		if next, rest, err = parseStep(rest); err != nil {
			return Path{}, fmt.Errorf("path %q: %w", s, err)
		}
		p.steps = append(p.steps, next)
	}
	if len(p.steps) == 0 {
		return Path{}, fmt.Errorf("path %q: want a member of the document, as $.record_uid", s)
	}
	return p, nil
}

func parseStep(s string) (step, string, error) {
	if name, ok := strings.CutPrefix(s, "."); ok {
		end := strings.IndexAny(name, ".[")
		if end < 0 {
			end = len(name)
		}
		if end == 0 {
			return step{}, "", fmt.Errorf("want a name at %q", s)
		}
		return step{name: name[:end]}, name[end:], nil
	}
	for _, quote := range []string{"'", `"`} {
		quoted, ok := strings.CutPrefix(s, "["+quote)
		if !ok {
			continue
		}
		name, rest, ok := strings.Cut(quoted, quote+"]")
		if !ok || name == "" {
			return step{}, "", fmt.Errorf("want a name in quotes at %q", s)
		}
		return step{name: name}, rest, nil
	}
	inside, rest, ok := strings.Cut(strings.TrimPrefix(s, "["), "]")
	if !ok || s[0] != '[' {
		return step{}, "", fmt.Errorf("want .name or [index] at %q", s)
	}
	if inside == "*" {
		return step{index: every}, rest, nil
	}
	index, err := strconv.Atoi(inside)
	if err != nil || index < 0 {
		return step{}, "", fmt.Errorf("want an index or * at %q", s)
	}
	return step{index: index}, rest, nil
}

// Find returns the texts, numbers and truth values at the path, as text. What is
// missing, null or holds other values is left out.
func (p Path) Find(document any) []string {
	if len(p.steps) == 0 {
		return nil
	}
	at := []any{document}
	for _, s := range p.steps {
		at = s.from(at)
	}
	var found []string
	for _, v := range at {
		switch v := v.(type) {
		case string:
			found = append(found, v)
		case fmt.Stringer: // json.Number
			found = append(found, v.String())
		case bool:
			found = append(found, strconv.FormatBool(v))
		}
	}
	return found
}

// First returns the first value at the path, or "".
func (p Path) First(document any) string {
	if found := p.Find(document); len(found) > 0 {
		return found[0]
	}
	return ""
}

// from goes one step from each value.
func (s step) from(all []any) []any {
	var next []any
	for _, v := range all {
		if s.name != "" {
			if m, ok := v.(map[string]any); ok {
				next = append(next, m[s.name])
			}
			continue
		}
		list, _ := v.([]any)
		switch {
		case s.index == every:
			next = append(next, list...)
		case s.index < len(list):
			next = append(next, list[s.index])
		}
	}
	return next
}
