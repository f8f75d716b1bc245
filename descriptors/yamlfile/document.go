package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Options change how a document is read. The zero value reads it as it stands.
type Options struct {
	// Lookup expands ${NAME} and ${NAME:-default} in scalar values, as
	// os.LookupEnv does. Nil leaves them alone.
	Lookup func(name string) (string, bool)
}

// Document is one parsed file and the problems found in it so far. It is not
// safe for concurrent use.
type Document struct {
	file     string
	options  Options
	root     *yaml.Node
	broken   bool // the root is empty because it could not be read
	problems Problems
}

// Parse reads one YAML document. It never fails by itself: a syntax error is
// the document's one problem, and its root is then empty and complains no more.
func Parse(file string, data []byte, o Options) *Document {
	d := &Document{file: file, options: o}
	if line, column, what := unreadable(data); what != "" {
		d.add(line, column, "not valid YAML: %s", what)
		d.broken = true
		return d
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return d
	case err != nil:
		d.syntax(err)
		d.broken = true
		return d
	}
	if d.broken = !d.check(doc.Content[0]); d.broken {
		return d
	}
	d.root = doc.Content[0]
	var second yaml.Node
	switch err := dec.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		d.syntax(err)
	default:
		d.add(second.Line, second.Column, "a second document starts here: want one document in a file")
	}
	return d
}

// Empty reports whether the file holds no value at all.
func (d *Document) Empty() bool {
	return d.root == nil || d.root.Tag == "!!null"
}

// Root returns the document's top value.
func (d *Document) Root() Node {
	return Node{doc: d, n: d.root}
}

// Problems returns what has been found so far, unsorted. The slice belongs to
// the document.
func (d *Document) Problems() Problems {
	return d.problems
}

// Err returns every problem found so far as [Problems], or nil.
func (d *Document) Err() error {
	return d.problems.ErrOrNil()
}

func (d *Document) add(line, column int, format string, args ...any) {
	d.problems = append(d.problems, Problem{File: d.file, Line: line, Column: column, Message: fmt.Sprintf(format, args...)})
}

// unreadable finds what no YAML file may hold. The parser would find it too,
// but not say where.
func unreadable(data []byte) (line, column int, what string) {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return 0, 0, "" // UTF-16, which the parser converts
	}
	line, column = 1, 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return line, column, fmt.Sprintf("byte 0x%02x is not UTF-8", data[i])
		case r == '\n':
			line, column = line+1, 0
		case r < ' ' && r != '\t' && r != '\r' || r == 0x7f:
			return line, column, fmt.Sprintf("control character U+%04X is not allowed", r)
		}
		i += size
		column++
	}
	return 0, 0, ""
}

// syntax turns the parser's error into a problem with a position.
func (d *Document) syntax(err error) {
	line, column, message := 1, 1, err.Error()
	if load, ok := errors.AsType[*yaml.LoadError](err); ok {
		line, column, message = max(load.Mark.Line, 1), max(load.Mark.Column, 1), load.Message
		if at := load.ContextMark; load.ContextMsg != "" && at.Line > 0 && at != load.Mark {
			message = fmt.Sprintf("%s at line %d, column %d: %s", load.ContextMsg, at.Line, at.Column, message)
		}
	}
	d.add(line, column, "not valid YAML: %s", message)
}

var variable = regexp.MustCompile(`\$\$\{|\$\{[^}]*\}?`)
var variableName = regexp.MustCompile(`^\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}$`)

// expand replaces ${NAME} and ${NAME:-default}; $${ stands for a literal ${.
// ok is false where that cannot be done, which is then a problem.
func (n Node) expand(s string) (text string, ok bool) {
	if n.doc.options.Lookup == nil || !strings.Contains(s, "${") {
		return s, true
	}
	ok = true
	text = variable.ReplaceAllStringFunc(s, func(v string) string {
		if v == "$${" {
			return "${"
		}
		m := variableName.FindStringSubmatch(v)
		if m == nil {
			n.Errorf("%q: want ${NAME} or ${NAME:-default}, or $${ for a literal ${", v)
			ok = false
			return ""
		}
		value, set := n.doc.options.Lookup(m[1])
		hasDefault := m[2] != ""
		switch {
		case set && (value != "" || !hasDefault):
			return value
		case !hasDefault:
			n.Errorf("environment variable %s is not set: set it or write ${%s:-default}", m[1], m[1])
			ok = false
		}
		return m[3]
	})
	return text, ok
}
