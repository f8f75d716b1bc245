package descriptors

import (
	"fmt"
	"slices"

	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
	"github.com/tollgate-dev/tollgate/limits"
)

// builder makes Rules of Configs and collects what is wrong with them.
type builder struct {
	options  Options
	rules    *Rules
	problems yamlfile.Problems // of configs that are no files; documents keep their own
	places   map[string]string // where each domain was first given
	seen     map[*level]map[Entry]string
	specs    map[limits.Limit]*limits.Spec
	order    int
}

func newBuilder(o Options) *builder {
	return &builder{
		options: o,
		rules:   &Rules{domains: map[string]*Domain{}},
		places:  map[string]string{},
		seen:    map[*level]map[Entry]string{},
		specs:   map[limits.Limit]*limits.Spec{},
	}
}

// spot is where a problem is reported: in a file at a value, elsewhere by words.
type spot struct {
	config string
	path   string // of descriptors
	source
}

// report says what is wrong with the value of a key, unless its reader has had
// a complaint already.
func (b *builder) report(s spot, key, format string, args ...any) {
	switch {
	case slices.Contains(s.unread, key):
	case s.at != nil:
		s.at.At(key).Errorf(format, args...)
	case s.path != "":
		b.problems = append(b.problems, yamlfile.Problem{File: s.config, Message: s.path + ": " + fmt.Sprintf(format, args...)})
	default:
		b.problems = append(b.problems, yamlfile.Problem{File: s.config, Message: fmt.Sprintf(format, args...)})
	}
}

// place names a spot for messages about another one.
func (s spot) place() string {
	if s.at == nil {
		return s.config
	}
	return fmt.Sprintf("%s:%d", s.config, s.at.Node().Line())
}

func (b *builder) build(configs []Config) {
	for _, c := range configs {
		d := b.domain(c)
		b.descriptors(d, &d.root, nil, spot{config: c.Name}, c.Descriptors)
	}
	slices.Sort(b.rules.names)
}

// domain returns where a config's rules go: one that is not kept if there is a
// problem with the domain, so that the rules are still checked.
func (b *builder) domain(c Config) *Domain {
	s := spot{config: c.Name, source: c.source}
	d := b.rules.domains[c.Domain]
	switch {
	case c.Domain == "":
		b.report(s, "domain", "domain is missing: want the name that Envoy's rate limit filter sends")
	case d == nil:
		d = &Domain{name: c.Domain}
		b.rules.domains[c.Domain] = d
		b.rules.names = append(b.rules.names, c.Domain)
		b.places[c.Domain] = s.place()
		return d
	case b.options.MergeDomains:
		return d
	default:
		b.report(s, "domain", "domain %q: already given in %s: put its rules together, or allow domains to be merged (MERGE_DOMAIN_CONFIG=true)",
			c.Domain, b.places[c.Domain])
	}
	return &Domain{name: c.Domain}
}

// descriptors adds a list to a level; above holds the levels that lead there.
func (b *builder) descriptors(d *Domain, l *level, above []step, s spot, list []Descriptor) {
	seen := b.seen[l]
	if seen == nil {
		seen = map[Entry]string{}
		b.seen[l] = seen
	}
	for i := range list {
		c := &list[i]
		own := newStep(c)
		here := spot{config: s.config, path: join(s.path, own.text), source: c.source}
		first, duplicate := seen[own.entry]
		switch {
		case slices.Contains(c.unread, "value"):
		case c.Key == "":
			b.report(here, "key", "key is missing: want the key of a descriptor's entry")
		case duplicate:
			b.report(here, "key", "%s: already given in %s", own.describe(), first)
		default:
			seen[own.entry] = here.place()
		}
		if c.ShareThreshold && len(c.unread) == 0 && !hasWildcard(own.text) {
			b.report(here, "share_threshold", "share_threshold: want a value with a wildcard (*), of which all matches then share one counter")
		}
		n := &node{}
		b.order++
		l.add(c.Key, c.Value, b.order, n)
		steps := append(slices.Clip(above), own)
		n.rule = b.limits(d, c, steps, here)
		if len(c.Descriptors) > 0 {
			n.children = &level{}
			b.descriptors(d, n.children, steps, here, c.Descriptors)
		}
	}
}

// step is one descriptor on the way to a rule.
type step struct {
	entry  Entry
	text   string // key_value
	share  bool
	metric bool // value_to_metric
}

func newStep(c *Descriptor) step {
	s := step{entry: Entry{c.Key, c.Value}, text: c.Key, share: c.ShareThreshold, metric: c.ValueToMetric}
	if c.Value != "" {
		s.text += "_" + c.Value
	}
	return s
}

func (s step) describe() string {
	if s.entry.Value == "" {
		return fmt.Sprintf("key %q without a value", s.entry.Key)
	}
	return fmt.Sprintf("key %q with value %q", s.entry.Key, s.entry.Value)
}

func join(path, text string) string {
	if path == "" {
		return text
	}
	return path + "." + text
}

// limits makes the rules of a descriptor's limits, chained in their order.
func (b *builder) limits(d *Domain, c *Descriptor, steps []step, s spot) *Rule {
	var first *Rule
	next := &first
	tags := tags(c.Limits)
	for i := range c.Limits {
		l := &c.Limits[i]
		here := spot{config: s.config, path: s.path, source: l.source}
		if !b.valid(l, here) {
			continue
		}
		if slices.Contains(tags[:i], tags[i]) {
			b.report(here, "name", "several limits of one descriptor have the same %s: give each a name of its own", sameness(l))
			continue
		}
		r := &Rule{
			Name: l.Name, Path: s.path, Replaces: l.Replaces,
			Unit: l.Unit, UnitMultiplier: max(l.UnitMultiplier, 1), RequestsPerUnit: l.RequestsPerUnit,
			Unlimited: l.Unlimited, Shadow: c.Shadow, Quota: c.Quota, OnError: l.OnError, Metadata: c.Metadata,
			domain: d.name, tag: tags[i], fixed: !l.Unlimited && isFixed(l.Algorithm), shared: shared(steps),
			levels: levels(steps), parts: parts(steps, c.DetailedMetric),
		}
		if !l.Unlimited {
			spec, err := b.spec(l, c.Shadow)
			if err != nil {
				b.report(here, "requests_per_unit", "rate_limit: %v", err)
				continue
			}
			r.Spec = spec.Grouped(group(d.name, s.path, tags[i]))
		}
		*next, next = r, &r.Next
		d.rules = append(d.rules, r)
	}
	return first
}

// shared returns the patterns that stand for entries in keys, by level, or nil.
func shared(steps []step) []Entry {
	var patterns []Entry
	for i, s := range steps {
		if s.share {
			if patterns == nil {
				patterns = make([]Entry, len(steps))
			}
			patterns[i] = s.entry
		}
	}
	return patterns
}

func levels(steps []step) []string {
	texts := make([]string, len(steps))
	for i, s := range steps {
		texts[i] = s.text
	}
	return texts
}

// parts returns what labels are made of, or nil where the path alone is it.
func parts(steps []step, detailed bool) []part {
	ps := make([]part, len(steps))
	dynamic := false
	for i, s := range steps {
		exact := s.entry.Value != "" && !hasWildcard(s.text)
		ps[i] = part{text: s.text, value: (detailed || s.metric) && !s.share && !exact}
		dynamic = dynamic || ps[i].value
	}
	if !dynamic {
		return nil
	}
	return ps
}
