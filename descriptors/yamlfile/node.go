package yamlfile

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Node is one value of a document. Its readers return the zero value and
// record a problem where the value has another type.
type Node struct {
	doc *Document
	n   *yaml.Node
}

// Line returns the line the value starts on, counted from 1.
func (n Node) Line() int {
	line, _ := n.position()
	return line
}

func (n Node) position() (line, column int) {
	if n.n == nil {
		return 1, 1
	}
	return n.n.Line, n.n.Column
}

// Errorf records a problem at the value's position.
func (n Node) Errorf(format string, args ...any) {
	if n.n == nil && n.doc.broken {
		return
	}
	line, column := n.position()
	n.doc.add(line, column, format, args...)
}

// Problem returns a problem at the value's position without recording it: it is
// for what works but should be changed.
func (n Node) Problem(format string, args ...any) Problem {
	line, column := n.position()
	return Problem{File: n.doc.file, Line: line, Column: column, Message: fmt.Sprintf(format, args...)}
}

// resolve follows aliases; the document's check has seen to it that this ends.
func (n Node) resolve() Node {
	for n.n != nil && n.n.Kind == yaml.AliasNode {
		n.n = n.n.Alias
	}
	return n
}

// Null reports whether the value is absent or null.
func (n Node) Null() bool {
	r := n.resolve()
	return r.n == nil || r.n.Kind == yaml.ScalarNode && r.n.Tag == "!!null"
}

// IsMap reports whether the value is a mapping, for values that may be written
// in two ways.
func (n Node) IsMap() bool {
	r := n.resolve()
	return r.n != nil && r.n.Kind == yaml.MappingNode
}

// IsList reports whether the value is a list.
func (n Node) IsList() bool {
	r := n.resolve()
	return r.n != nil && r.n.Kind == yaml.SequenceNode
}

// describe names the value's type for a message. It does not repeat the value:
// what stands in the wrong place may be a secret.
func (n Node) describe() string {
	r := n.resolve()
	switch {
	case r.Null():
		return "nothing"
	case r.n.Kind == yaml.MappingNode:
		return "a mapping"
	case r.n.Kind == yaml.SequenceNode:
		return "a list"
	case r.n.Tag == "!!int" || r.n.Tag == "!!float":
		return "a number"
	case r.n.Tag == "!!bool":
		return "true or false"
	}
	return "text"
}

// wrong records that the value is not what was wanted. It quotes the value as
// the file has it, not what an environment variable holds.
func (n Node) wrong(want string, args ...any) {
	n.Errorf("%q: want "+want, append([]any{n.resolve().n.Value}, args...)...)
}

// Scalar returns the text of a scalar of any type, environment variables
// expanded. It is for values such as rates that have a syntax of their own.
func (n Node) Scalar() (string, bool) {
	r := n.resolve()
	if r.n == nil || r.n.Kind != yaml.ScalarNode || r.Null() {
		n.Errorf("want a value, got %s", n.describe())
		return "", false
	}
	return n.expand(r.n.Value)
}

// String reads a string. A number or a boolean is taken as it is written, so
// that `value: 42` means "42".
func (n Node) String() string {
	s, _ := n.Scalar()
	return s
}

// Int reads a whole number within min and max.
func (n Node) Int(min, max int64) int64 {
	s, ok := n.Scalar()
	if !ok {
		return 0
	}
	i, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 10, 64)
	if err != nil || i < min || i > max {
		n.wrong("a whole number from %d to %d", min, max)
		return 0
	}
	return i
}

// Bool reads true or false, or another of YAML 1.1's words for them.
func (n Node) Bool() bool {
	s, ok := n.Scalar()
	if !ok {
		return false
	}
	switch strings.ToLower(s) {
	case "true", "yes", "on":
		return true
	case "false", "no", "off":
		return false
	}
	n.wrong("true or false")
	return false
}

// Duration reads a Go duration such as 1s or 250ms that is not negative.
func (n Node) Duration() time.Duration {
	s, ok := n.Scalar()
	if !ok {
		return 0
	}
	if s == "0" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		n.wrong("a duration such as 1s, 250ms or 1h30m")
		return 0
	}
	return d
}

// Time reads an RFC 3339 instant.
func (n Node) Time() time.Time {
	s, ok := n.Scalar()
	if !ok {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		n.wrong("a time such as 2027-01-01T00:00:00Z")
		return time.Time{}
	}
	return t
}

// OneOf reads one of the given words.
func (n Node) OneOf(words ...string) string {
	s, ok := n.Scalar()
	if !ok {
		return ""
	}
	for _, w := range words {
		if s == w {
			return w
		}
	}
	n.wrong("one of %s", strings.Join(words, ", "))
	return ""
}

// List returns the elements of a list.
func (n Node) List() []Node {
	r := n.resolve()
	if r.n == nil || r.n.Kind != yaml.SequenceNode {
		n.Errorf("want a list, got %s", n.describe())
		return nil
	}
	nodes := make([]Node, len(r.n.Content))
	for i, c := range r.n.Content {
		nodes[i] = Node{doc: n.doc, n: c}
	}
	return nodes
}

// Strings reads a list of strings.
func (n Node) Strings() []string {
	var s []string
	for _, e := range n.List() {
		s = append(s, e.String())
	}
	return s
}
