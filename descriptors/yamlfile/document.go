package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// maxAliases bounds how often aliases are followed in one document, so that a
// small file of nested aliases cannot grow into a large one.
const maxAliases = 1000

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
	aliases  int
	problems Problems
}

// Parse reads one YAML document. It never fails by itself: a syntax error is
// the document's first problem, and its root is then empty.
func Parse(file string, data []byte, o Options) *Document {
	d := &Document{file: file, options: o}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return d
	case err != nil:
		d.syntax(err)
		return d
	}
	if len(doc.Content) > 0 {
		d.root = doc.Content[0]
	}
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

var yamlPosition = regexp.MustCompile(`line (\d+)(?:, column (\d+))?(?:: )?`)

// syntax turns the parser's error into a problem with a position.
func (d *Document) syntax(err error) {
	message := err.Error()
	line, column := 1, 1
	if m := yamlPosition.FindStringSubmatchIndex(message); m != nil {
		line, _ = strconv.Atoi(message[m[2]:m[3]])
		if m[4] >= 0 {
			column, _ = strconv.Atoi(message[m[4]:m[5]])
		}
		message = message[m[1]:]
	}
	message = strings.TrimPrefix(strings.TrimSpace(message), "yaml: ")
	d.add(line, column, "not valid YAML: %s", message)
}

var variable = regexp.MustCompile(`\$\$\{|\$\{[^}]*\}?`)
var variableName = regexp.MustCompile(`^\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}$`)

// expand replaces ${NAME} and ${NAME:-default}; $${ stands for a literal ${.
func (n Node) expand(s string) string {
	if n.doc.options.Lookup == nil || !strings.Contains(s, "${") {
		return s
	}
	return variable.ReplaceAllStringFunc(s, func(v string) string {
		if v == "$${" {
			return "${"
		}
		m := variableName.FindStringSubmatch(v)
		if m == nil {
			n.Errorf("%q: want ${NAME} or ${NAME:-default}, or $${ for a literal ${", v)
			return ""
		}
		if value, ok := n.doc.options.Lookup(m[1]); ok && (value != "" || m[2] == "") {
			return value
		}
		if m[2] == "" {
			n.Errorf("environment variable %s is not set: set it or write ${%s:-default}", m[1], m[1])
		}
		return m[3]
	})
}
