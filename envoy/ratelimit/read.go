package ratelimit

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

// maxDescriptors bounds one request. Envoy's configuration makes a handful.
const maxDescriptors = 256

// part is one descriptor of a request.
type part struct {
	asked
	entries []descriptors.Entry
	hits    int64 // 0 is a look
	refund  bool
	rule    *descriptors.Rule
	grant   consumers.Grant // whose own limits it takes from, or nobody's

	quota       bool
	over        bool // a limit refuses
	first, last int  // its claims

	spent     limits.Claim // of a quota that does not count any more: the claim that refused,
	spentFrom origin       // and where it came from
}

// asked is a descriptor as it stands in the request.
type asked struct {
	from, to  int    // its share of the decision's entries
	ownHits   uint64 // hits_addend
	hasHits   bool   // and whether it is there
	negative  bool   // is_negative_hits
	override  descriptors.Override
	overrides bool // whether there is one
}

// complete makes parts of what was asked. The error says what cannot be meant.
func (d *decision) complete() error {
	switch {
	case d.domain == "":
		return errors.New("domain: must not be empty")
	case d.asked == 0:
		return errors.New("descriptors: must not be empty")
	case d.asked > maxDescriptors:
		return fmt.Errorf("descriptors: %d, want at most %d", d.asked, maxDescriptors)
	}
	d.rules = d.server.o.Book.Rules().Domain(d.domain)
	for i := range d.parts {
		if err := d.completePart(&d.parts[i]); err != nil {
			return fmt.Errorf("descriptors[%d].%w", i, err)
		}
	}
	if d.policy.Mode == extauthz.Off {
		return nil
	}
	for i := range d.parts {
		if err := d.match(&d.parts[i]); err != nil {
			return fmt.Errorf("descriptors[%d].%w", i, err)
		}
	}
	d.callersOnce()
	d.replace()
	if d.unknown = d.rules == nil && !d.hasCaller(); d.unknown {
		d.server.unknown.Add(1)
	}
	return nil
}

// completePart settles a part's entries and hits.
func (d *decision) completePart(p *part) error {
	p.entries = d.entries[p.from:p.to:p.to]
	if len(p.entries) == 0 {
		return errors.New("entries: must not be empty")
	}
	p.hits = max(int64(d.hits), 1)
	if p.hasHits {
		if p.ownHits > limits.MaxN {
			return fmt.Errorf("hits_addend: %d, want at most %d", p.ownHits, int64(limits.MaxN))
		}
		p.hits = int64(p.ownHits)
	}
	p.refund = p.negative && p.hits > 0
	for i := range p.entries {
		if p.entries[i].Key == "" {
			return fmt.Errorf("entries[%d].key: must not be empty", i)
		}
	}
	return nil
}

// match finds the rule and the caller of a descriptor.
func (d *decision) match(p *part) (err error) {
	p.grant = d.caller(p.entries)
	if d.rules == nil {
		return nil
	}
	if p.overrides {
		p.rule, err = d.server.o.Book.Override(d.rules, p.entries, p.override)
		return err
	}
	p.rule = d.rules.Match(p.entries)
	p.quota = p.rule != nil && (p.rule.Quota || d.policy.Quota)
	return nil
}

// caller finds whom a descriptor names, if anybody that is known.
func (d *decision) caller(entries []descriptors.Entry) consumers.Grant {
	registry := d.server.o.Registry
	subject, value := descriptors.SubjectOf(entries)
	switch subject {
	case descriptors.SubjectToken:
		return d.credential(value)
	case descriptors.SubjectConsumer:
		if id := tokenID(entries); id != "" {
			if g, standing := registry.Token(d.now, value, id); standing == consumers.Valid {
				return g
			}
		}
		if g, standing := registry.Consumer(d.now, value); standing == consumers.Valid {
			return g
		}
	}
	return consumers.Grant{}
}

// credential finds the grant of a credential, with its scheme or without.
func (d *decision) credential(value string) consumers.Grant {
	if scheme, rest, found := strings.Cut(value, " "); found {
		for _, s := range d.policy.schemes() {
			if strings.EqualFold(s, scheme) {
				value = strings.TrimLeft(rest, " ")
			}
		}
	}
	if g, standing := d.server.o.Registry.Resolve(d.now, value); standing == consumers.Valid {
		return g
	}
	return consumers.Grant{}
}

// tokenID returns the value of an entry `token`.
func tokenID(entries []descriptors.Entry) string {
	for _, e := range entries {
		if e.Key == "token" {
			return e.Value
		}
	}
	return ""
}

// callersOnce leaves each consumer to one descriptor, so that its limits count
// a request once: the one with the most hits, and of equals one that names a
// token, then the first.
func (d *decision) callersOnce() {
	for i := range d.parts {
		p := &d.parts[i]
		for j := 0; !p.grant.Nobody() && j < i; j++ {
			q := &d.parts[j]
			if q.grant.Nobody() || q.grant.Consumer.ID != p.grant.Consumer.ID || q.refund != p.refund {
				continue
			}
			if q.grant.Token != "" && p.grant.Token != "" && q.grant.Token != p.grant.Token {
				continue // two tokens of one consumer, each with buckets of its own
			}
			if q.outranks(p) {
				p.grant = consumers.Grant{}
			} else {
				q.grant = consumers.Grant{}
			}
		}
	}
}

// outranks reports whether p and not the later q takes from the limits of their
// common caller.
func (p *part) outranks(q *part) bool {
	if p.hits != q.hits {
		return p.hits > q.hits
	}
	return p.grant.Token != "" || q.grant.Token == ""
}

func (d *decision) hasCaller() bool {
	for i := range d.parts {
		if !d.parts[i].grant.Nobody() {
			return true
		}
	}
	return false
}

// replace drops the rules that another descriptor's rule replaces.
func (d *decision) replace() {
	for i := range d.parts {
		for r := d.parts[i].rule; r != nil; r = r.Next {
			if len(r.Replaces) > 0 {
				d.replaces = append(d.replaces, r)
			}
		}
	}
}

// replaced reports whether a rule gives way to another of the request.
func (d *decision) replaced(r *descriptors.Rule) bool {
	for _, o := range d.replaces {
		if r.ReplacedBy(o) {
			return true
		}
	}
	return false
}
