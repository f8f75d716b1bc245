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

// Rule is what a descriptor that matches gets.
type Rule struct {
	Name      string   // rate_limit.name
	Path      string   // the rule's place: key_value parts joined by dots, for metrics and logs
	Replaces  []string // names of limits that this one replaces in a request
	Spec      *limits.Spec
	Unlimited bool // admit without counting
	Quota     bool // quota_mode
	Subject   Subject
	Metadata  map[string]any
}

// Subject says whose own limits a matching descriptor takes from beside the rule's.
type Subject int

// The subjects of a descriptor.
const (
	SubjectNone     Subject = iota
	SubjectToken            // an entry `token` names a credential
	SubjectConsumer         // an entry `consumer` names a consumer's id
)

// Book pairs the rules in force with the live limiters of their descriptors.
// Safe for concurrent use.
type Book struct{}

// NewBook returns a book over the given table.
func NewBook(t *limits.Table) *Book { panic("skeleton") }

// Swap puts rules in force, whole. Limiters of rules that remain go on counting.
func (b *Book) Swap(r *Rules) { panic("skeleton") }

// Rules returns the rules in force; one decision uses one value.
func (b *Book) Rules() *Rules { panic("skeleton") }

// Limiter returns the live limiter of a rule for these entries.
func (b *Book) Limiter(now limits.Time, domain string, rule *Rule, entries []Entry) *limits.Limiter {
	panic("skeleton")
}
