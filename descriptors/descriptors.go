package descriptors

import (
	"github.com/tollgate-dev/tollgate/limits"
)

// Entry is one key and value of a request's descriptor.
type Entry struct{ Key, Value string }

// File is a rule file as read by the caller.
type File struct {
	Name string // for messages
	Data []byte
}

// Options change how rules are read.
type Options struct {
	MergeDomains bool // files may share a domain
}

// Parse reads rule files; the error is yamlfile.Problems, all at once.
func Parse(files []File, o Options) (*Rules, error) { panic("skeleton") }

// Rules is every domain's rules, immutable.
type Rules struct{}

// Domain returns a domain's rules, or nil.
func (r *Rules) Domain(name string) *Domain { panic("skeleton") }

// Domain is the rules of one domain, immutable.
type Domain struct{}

// Match returns the rule for a request's descriptor, or nil. Nothing is
// allocated and the cost does not depend on the number of rules.
func (d *Domain) Match(entries []Entry) *Rule { panic("skeleton") }

// Unit is the length of a rule's window. Its numbers are those of Envoy's
// RateLimitResponse.RateLimit.Unit, and of envoy.type.v3.RateLimitUnit as far
// as that goes, so that a conversion is a cast.
type Unit int32

// The units. Month and year are calendar months and years in UTC.
const (
	UnitUnset Unit = iota
	Second
	Minute
	Hour
	Day
	Month
	Year
	Week
)

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
}

// ReplacedBy reports whether o, matched by another descriptor of the same
// request, replaces this limit: it is then neither checked nor counted.
func (r *Rule) ReplacedBy(o *Rule) bool { panic("skeleton") }

// Subject says whose own limits a descriptor takes from beside the rule's.
type Subject int

// The subjects of a descriptor.
const (
	SubjectNone     Subject = iota
	SubjectToken            // an entry `token` names a credential
	SubjectConsumer         // an entry `consumer` names a consumer's id
)

// SubjectOf finds the first entry `token` or `consumer` of a descriptor and
// returns its value. It does not depend on the rules.
func SubjectOf(entries []Entry) (s Subject, value string) { panic("skeleton") }

// Override is a limit that a request brings along (descriptor.limit).
type Override struct {
	Unit            Unit
	UnitMultiplier  uint32 // 0 means 1
	RequestsPerUnit uint32
}

// Book pairs the rules in force with the live limiters of their descriptors.
// Safe for concurrent use.
type Book struct{}

// NewBook returns a book over the given table.
func NewBook(t *limits.Table) *Book { panic("skeleton") }

// Swap puts rules in force, whole. Limiters of rules that remain go on counting.
func (b *Book) Swap(r *Rules) { panic("skeleton") }

// Rules returns the rules in force; one decision uses one value.
func (b *Book) Rules() *Rules { panic("skeleton") }

// Override returns the rule for a descriptor that brings its own limit, in
// place of the one that matches. It counts where the matching rule does if both
// have the same window. The error says what is wrong with o. Nothing is
// allocated for an override seen before.
func (b *Book) Override(d *Domain, entries []Entry, o Override) (*Rule, error) { panic("skeleton") }

// Limiter returns the live limiter of a rule for these entries, nil if the rule
// is unlimited. Nothing is allocated for one that lives.
func (b *Book) Limiter(now limits.Time, rule *Rule, entries []Entry) *limits.Limiter {
	panic("skeleton")
}

// Label returns the rule's path for metrics, with the request's values where
// detailed_metric or value_to_metric asks for them. The number of different
// labels is bounded; beyond the bound, and for all other rules, it is the Path.
func (b *Book) Label(rule *Rule, entries []Entry) string { panic("skeleton") }
