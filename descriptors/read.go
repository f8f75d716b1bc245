package descriptors

import (
	"math"

	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
	"github.com/tollgate-dev/tollgate/limits"
)

// Keys by the mapping that they belong to, for those found in another.
var (
	descriptorKeys = []string{"key", "value", "rate_limit", "shadow_mode", "quota_mode", "detailed_metric", "value_to_metric", "share_threshold", "metadata"}
	rateLimitKeys  = []string{"unit", "requests_per_unit", "unlimited", "name", "replaces", "algorithm", "burst", "unit_multiplier", "max_wait", "on_error"}
)

// reader turns one document into a Config. What is wrong with a value by itself
// it reports; what is missing or wrong in connection is the builder's to say.
type reader struct {
	doc *yamlfile.Document
}

// mapping is one mapping that is being read.
type mapping struct {
	reader
	*yamlfile.Map
	source
}

func (r reader) mapping(n yamlfile.Node) *mapping {
	m := n.Map()
	return &mapping{reader: r, Map: m, source: source{at: m}}
}

// read reads the value of a key, if there is one, and notes whether that went
// well.
func (m *mapping) read(key string, into func(yamlfile.Node)) {
	v, ok := m.Get(key)
	if !ok {
		return
	}
	before := len(m.doc.Problems())
	into(v)
	if len(m.doc.Problems()) > before {
		m.unread = append(m.unread, key)
	}
}

func (m *mapping) text(key string, into *string) {
	m.read(key, func(v yamlfile.Node) { *into = v.String() })
}

func (m *mapping) flag(key string, into *bool) {
	m.read(key, func(v yamlfile.Node) { *into = v.Bool() })
}

// done reports unknown keys. A required key that is not there may be one of
// them, misspelled: then one complaint is enough.
func (m *mapping) done(required ...string) {
	before := len(m.doc.Problems())
	m.Done()
	if len(m.doc.Problems()) > before {
		m.unread = append(m.unread, required...)
	}
}

func (r reader) config(name string) (c Config, ok bool) {
	if r.doc.Empty() {
		r.doc.Root().Errorf("no rules in this file: want domain and descriptors")
		return c, false
	}
	m := r.mapping(r.doc.Root())
	c = Config{Name: name}
	m.text("domain", &c.Domain)
	m.read("descriptors", func(v yamlfile.Node) { c.Descriptors = r.descriptors(v) })
	m.Misplaced("belongs in an element of descriptors", descriptorKeys...)
	m.Misplaced("belongs in a descriptor's rate_limit", rateLimitKeys...)
	m.done("domain")
	c.source = m.source
	return c, true
}

func (r reader) descriptors(n yamlfile.Node) []Descriptor {
	list := n.List()
	ds := make([]Descriptor, len(list))
	for i, e := range list {
		ds[i] = r.descriptor(e)
	}
	return ds
}

func (r reader) descriptor(n yamlfile.Node) (d Descriptor) {
	m := r.mapping(n)
	m.text("key", &d.Key)
	m.text("value", &d.Value)
	m.flag("shadow_mode", &d.Shadow)
	m.flag("quota_mode", &d.Quota)
	m.flag("detailed_metric", &d.DetailedMetric)
	m.flag("value_to_metric", &d.ValueToMetric)
	m.flag("share_threshold", &d.ShareThreshold)
	m.read("metadata", func(v yamlfile.Node) {
		metadata, ok := v.Any().(map[string]any)
		if !ok {
			v.Map() // says what is wanted
		}
		d.Metadata = metadata
	})
	m.read("rate_limit", func(v yamlfile.Node) { d.Limits = r.limits(v) })
	m.read("descriptors", func(v yamlfile.Node) { d.Descriptors = r.descriptors(v) })
	m.Misplaced("belongs in rate_limit", rateLimitKeys...)
	m.Misplaced("belongs at the top of the file", "domain")
	m.done("key")
	if !n.IsMap() {
		m.unread = append(m.unread, "key")
	}
	d.source = m.source
	return d
}

// limits reads one limit or a list of several.
func (r reader) limits(n yamlfile.Node) []RateLimit {
	if !n.IsList() {
		return []RateLimit{r.limit(n)}
	}
	var ls []RateLimit
	list := n.List()
	if len(list) == 0 {
		n.Errorf("rate_limit: want at least one limit in the list")
	}
	for _, e := range list {
		ls = append(ls, r.limit(e))
	}
	return ls
}

func (r reader) limit(n yamlfile.Node) (l RateLimit) {
	m := r.mapping(n)
	m.text("name", &l.Name)
	m.read("replaces", func(v yamlfile.Node) { l.Replaces = r.replaces(v, l.Name) })
	m.flag("unlimited", &l.Unlimited)
	m.read("unit", func(v yamlfile.Node) { l.Unit = unit(v, l.Unlimited) })
	m.read("requests_per_unit", func(v yamlfile.Node) { l.RequestsPerUnit = uint32(v.Int(0, math.MaxUint32)) })
	m.read("unit_multiplier", func(v yamlfile.Node) { l.UnitMultiplier = uint32(v.Int(1, math.MaxUint32)) })
	m.read("algorithm", func(v yamlfile.Node) {
		l.Algorithm = v.OneOf(string(limits.FixedWindow), string(limits.Rate), string(limits.Window), string(limits.Pace))
	})
	m.read("burst", func(v yamlfile.Node) { l.Burst = v.Int(1, limits.MaxN) })
	m.read("max_wait", func(v yamlfile.Node) { l.MaxWait = v.Duration() })
	m.read("on_error", func(v yamlfile.Node) { l.OnError = v.OneOf("local", "allow", "deny") })
	m.Misplaced("belongs beside rate_limit, not in it", append([]string{"descriptors"}, descriptorKeys...)...)
	_, l.counts = m.Get("requests_per_unit")
	m.done("unit", "requests_per_unit")
	if !n.IsMap() {
		m.unread = append(m.unread, "unit", "requests_per_unit")
	}
	l.source = m.source
	return l
}

func unit(n yamlfile.Node, unlimited bool) Unit {
	s, ok := n.Scalar()
	u, known := ParseUnit(s)
	if ok && !known && (s != "" || !unlimited) {
		n.Errorf("unit %q: want one of %s", s, unitNames)
	}
	return u
}

func (r reader) replaces(n yamlfile.Node, self string) []string {
	var names []string
	for _, e := range n.List() {
		m := r.mapping(e)
		name := ""
		m.text("name", &name)
		m.done("name")
		switch {
		case !e.IsMap() || len(m.unread) > 0:
		case name == "":
			e.Errorf("replaces: name is missing: want the name of another limit")
		case name == self:
			e.Errorf("replaces: %q is this limit's own name: want the name of another limit", name)
		}
		names = append(names, name)
	}
	return names
}
