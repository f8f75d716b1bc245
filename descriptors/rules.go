package descriptors

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// Rules is every domain's rules, immutable. The zero value has none.
type Rules struct {
	domains map[string]*Domain
	names   []string // of the domains, sorted
}

// Domain returns a domain's rules, or nil.
func (r *Rules) Domain(name string) *Domain {
	return r.domains[name]
}

// Len returns the number of limits, unlimited ones included.
func (r *Rules) Len() int {
	n := 0
	for _, d := range r.domains {
		n += len(d.rules)
	}
	return n
}

// MaxWait returns the longest time that a rule may hold a request.
func (r *Rules) MaxWait() time.Duration {
	var longest time.Duration
	for _, d := range r.domains {
		for _, rule := range d.rules {
			if rule.Spec != nil {
				longest = max(longest, rule.Spec.Limit().MaxWait)
			}
		}
	}
	return longest
}

// Domain is the rules of one domain, immutable.
type Domain struct {
	name  string
	root  level
	rules []*Rule // in the order of the files
}

// Name returns the domain's name.
func (d *Domain) Name() string {
	return d.name
}

// Rule is one limit for the descriptors that match it, immutable. A descriptor
// in the file may have several limits: they are chained by Next, and each counts
// by itself.
type Rule struct {
	Name            string   // rate_limit.name
	Path            string   // the rule's place: key_value parts joined by dots, for metrics and logs
	Replaces        []string // names of limits that this one replaces in a request
	Unit            Unit
	UnitMultiplier  uint32 // at least 1
	RequestsPerUnit uint32
	Spec            *limits.Spec // nil if Unlimited
	Unlimited       bool         // admit without counting
	Shadow          bool         // shadow_mode; the Spec is a shadow too
	Quota           bool         // quota_mode
	OnError         string       // local, allow or deny; empty: as the cluster says
	Metadata        map[string]any
	Next            *Rule // a further limit of the same descriptor, or nil

	tally  atomic.Pointer[tally] // nil until the rule is in force
	domain string
	tag    string   // tells apart counters of the same entries; empty for the first
	fixed  bool     // it counts in fixed windows, as overrides do
	shared []Entry  // by level: the pattern that stands for the entry in the key, or zero
	levels []string // of the Path
	parts  []part   // by level: what a label is made of; nil where the Path says all
}

// part is one level of a rule's path.
type part struct {
	text  string // key_value as configured
	value bool   // labels show the request's value instead
}

// ReplacedBy reports whether o, matched by another descriptor of the same
// request, replaces this limit: it is then neither checked nor counted.
func (r *Rule) ReplacedBy(o *Rule) bool {
	return r.Name != "" && slices.Contains(o.Replaces, r.Name)
}

// MergeMetadata copies into dst what src has and dst has not, down through
// nested maps: what came first wins. Nothing of src is shared that dst could
// later change.
func MergeMetadata(dst, src map[string]any) {
	for k, v := range src {
		nested, isMap := v.(map[string]any)
		old, given := dst[k]
		switch {
		case given && isMap:
			if into, ok := old.(map[string]any); ok {
				MergeMetadata(into, nested)
			}
		case given:
		case isMap:
			into := make(map[string]any, len(nested))
			MergeMetadata(into, nested)
			dst[k] = into
		default:
			dst[k] = v
		}
	}
}

// String lists every limit on a line of its own, as envoyproxy/ratelimit's
// /rlconfig does, domains in alphabetical order and limits in that of the files.
// What goes beyond that format follows at the end of the line.
func (r *Rules) String() string {
	var b strings.Builder
	for _, name := range r.names {
		for _, rule := range r.domains[name].rules {
			rule.describe(&b)
		}
	}
	return b.String()
}

func (r *Rule) describe(b *strings.Builder) {
	fmt.Fprintf(b, "%s.%s: unit=%s requests_per_unit=%d, shadow_mode: %t, quota_mode: %t",
		r.domain, r.Path, strings.ToUpper(r.Unit.String()), r.RequestsPerUnit, r.Shadow, r.Quota)
	if r.Unlimited {
		b.WriteString(", unlimited: true")
	}
	if r.UnitMultiplier > 1 {
		fmt.Fprintf(b, ", unit_multiplier: %d", r.UnitMultiplier)
	}
	if r.Spec != nil {
		l := r.Spec.Limit()
		if l.Kind != limits.FixedWindow && l.Kind != limits.Quota {
			fmt.Fprintf(b, ", algorithm: %s", l.Kind)
		}
		if l.Kind == limits.Rate {
			fmt.Fprintf(b, ", burst: %d", l.Burst)
		}
		if l.MaxWait > 0 {
			fmt.Fprintf(b, ", max_wait: %s", l.MaxWait)
		}
	}
	if r.OnError != "" {
		fmt.Fprintf(b, ", on_error: %s", r.OnError)
	}
	b.WriteByte('\n')
}
