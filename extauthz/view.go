package extauthz

import (
	"slices"
	"strings"
)

// Field is a name and a value: a header, or a context extension.
type Field struct{ Name, Value string }

// MetadataValue is one value of Envoy's dynamic metadata. A value that is no
// string, number or boolean is left empty.
type MetadataValue struct {
	Path  []string // namespace, then keys
	Value string
}

// View is what a decision reads of a request. Its strings need to live only as
// long as the decision and the writing of its answer. The zero value is a
// request without anything.
type View struct {
	ID            string // Envoy's request id
	Method        string
	Host          string
	Path          string  // as sent, with the query
	Headers       []Field // names in lower case; a repeated header may stand several times or joined by commas
	Principal     string  // of the client's certificate
	RemoteAddress string  // the client address that Envoy trusts

	Context  []Field         // the route's context_extensions
	Metadata []MetadataValue // those that the policy reads
}

// reset empties v and keeps its memory.
func (v *View) reset() {
	clear(v.Headers)
	clear(v.Context)
	clear(v.Metadata)
	*v = View{Headers: v.Headers[:0], Context: v.Context[:0], Metadata: v.Metadata[:0]}
}

// header returns the first value of a header.
func (v *View) header(name string) (string, bool) {
	return find(v.Headers, name)
}

// extension returns a context extension.
func (v *View) extension(name string) (string, bool) {
	return find(v.Context, name)
}

// metadata returns the value at a namespace and path of keys.
func (v *View) metadata(path ...string) (string, bool) {
	for i := range v.Metadata {
		if slices.Equal(v.Metadata[i].Path, path) {
			return v.Metadata[i].Value, true
		}
	}
	return "", false
}

// query returns the part of the path after the question mark.
func (v *View) query() string {
	path, _, _ := strings.Cut(v.Path, "#")
	_, query, _ := strings.Cut(path, "?")
	return query
}

func find(fields []Field, name string) (string, bool) {
	for i := range fields {
		if fields[i].Name == name {
			return fields[i].Value, true
		}
	}
	return "", false
}
