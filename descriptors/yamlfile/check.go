package yamlfile

import (
	"math"

	"go.yaml.in/yaml/v4"
)

// maxExpansion bounds how many values the aliases of one document may stand
// for, so that a small file cannot grow into a large one. It is far above what
// people write by hand.
const maxExpansion = 100_000

// checker walks a document once, before anyone reads it, so that readers may
// follow aliases without a second thought.
type checker struct {
	doc     *Document
	written int64                // values in the file
	sizes   map[*yaml.Node]int64 // of anchored values, aliases followed; 0 while inside
	circle  bool
}

// check reports what no reader could make sense of. It returns false where
// reading on would not end: aliases in a circle, or too many of them.
func (d *Document) check(root *yaml.Node) bool {
	c := checker{doc: d, sizes: map[*yaml.Node]int64{}}
	size := c.size(root)
	if size-c.written > maxExpansion {
		d.add(root.Line, root.Column, "its aliases stand for more than %d values: write fewer", maxExpansion)
		return false
	}
	return !c.circle
}

// size counts the values of n, aliases followed.
func (c *checker) size(n *yaml.Node) int64 {
	if n.Kind == yaml.AliasNode {
		size, seen := c.sizes[n.Alias]
		if seen && size == 0 {
			c.doc.add(n.Line, n.Column, "alias *%s stands inside the value that it names", n.Value)
			c.circle = true
		}
		return size
	}
	c.written++
	if n.Anchor != "" {
		c.sizes[n] = 0
	}
	if !meaningful(n.Tag) {
		c.doc.add(n.Line, n.Column, "the tag %s has no meaning here: leave it out", n.Tag)
	}
	size := int64(1)
	for _, child := range n.Content {
		size = min(size+c.size(child), math.MaxInt64/2)
	}
	if n.Anchor != "" {
		c.sizes[n] = size
	}
	return size
}

func meaningful(tag string) bool {
	switch tag {
	case "", "!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq", "!!merge", "!!timestamp":
		return true
	}
	return false
}
