package yamlfile

import (
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Any reads a value of any shape: map[string]any, []any, string, int64,
// float64, bool or nil. Instants stay text. It is for data that Tollgate only
// passes on.
func (n Node) Any() any {
	r := n.resolve()
	switch {
	case r.Null():
		return nil
	case r.n.Kind == yaml.MappingNode:
		m := map[string]any{}
		for _, e := range n.Map().Entries() {
			m[e.Key] = e.Value.Any()
		}
		return m
	case r.n.Kind == yaml.SequenceNode:
		list := []any{}
		for _, e := range n.List() {
			list = append(list, e.Any())
		}
		return list
	}
	switch r.n.Tag {
	case "!!bool":
		return n.Bool()
	case "!!int":
		if i, err := strconv.ParseInt(r.n.Value, 0, 64); err == nil {
			return i
		}
		return n.float()
	case "!!float":
		return n.float()
	}
	return n.String()
}

// float reads a finite number.
func (n Node) float() float64 {
	f, err := strconv.ParseFloat(strings.ReplaceAll(n.resolve().n.Value, "_", ""), 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		n.wrong("a finite number")
		return 0
	}
	return f
}
