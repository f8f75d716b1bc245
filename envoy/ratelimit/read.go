package ratelimit

import (
	"errors"
	"fmt"
	"strings"

	rlcommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

// maxDescriptors bounds one request. Envoy's configuration makes a handful.
const maxDescriptors = 256

// part is one descriptor of a request.
type part struct {
	entries []descriptors.Entry
	hits    int64 // 0 is a look
	refund  bool
	rule    *descriptors.Rule
	grant   *consumers.Grant // whose own limits it takes from, or nil

	quota       bool
	over        bool // a limit refuses
	first, last int  // its claims

	spent     limits.Claim // of a quota that does not count any more: the claim that refused,
	spentFrom origin       // and where it came from
}

// read takes a request in. The error says what cannot be meant.
func (d *decision) read(r *rlsv3.RateLimitRequest) error {
	switch n := len(r.GetDescriptors()); {
	case r.GetDomain() == "":
		return errors.New("domain: must not be empty")
	case n == 0:
		return errors.New("descriptors: must not be empty")
	case n > maxDescriptors:
		return fmt.Errorf("descriptors: %d, want at most %d", n, maxDescriptors)
	}
	d.rules = d.server.o.Book.Rules().Domain(r.GetDomain())
	for i, p := range r.GetDescriptors() {
		if err := d.readPart(p, int64(r.GetHitsAddend())); err != nil {
			return fmt.Errorf("descriptors[%d].%w", i, err)
		}
	}
	d.readEntries(r)
	if d.policy.Mode == extauthz.Off {
		return nil
	}
	for i := range d.parts {
		if err := d.match(&d.parts[i], r.GetDescriptors()[i]); err != nil {
			return fmt.Errorf("descriptors[%d].%w", i, err)
		}
	}
	d.callersOnce()
	d.replace()
	if d.rules == nil && !d.hasCaller() {
		d.server.unknown.Add(1)
	}
	return nil
}

// readPart reads what a descriptor says about hits.
func (d *decision) readPart(p *rlcommonv3.RateLimitDescriptor, requestHits int64) error {
	if len(p.GetEntries()) == 0 {
		return errors.New("entries: must not be empty")
	}
	hits := max(requestHits, 1)
	if own := p.GetHitsAddend(); own != nil {
		if own.GetValue() > limits.MaxN {
			return fmt.Errorf("hits_addend: %d, want at most %d", own.GetValue(), int64(limits.MaxN))
		}
		hits = int64(own.GetValue())
	}
	d.parts = append(d.parts, part{hits: hits, refund: p.GetIsNegativeHits() && hits > 0})
	for i, e := range p.GetEntries() {
		if e.GetKey() == "" {
			return fmt.Errorf("entries[%d].key: must not be empty", i)
		}
	}
	return nil
}

// readEntries copies the entries of all descriptors into one list, in which
// each part has its share.
func (d *decision) readEntries(r *rlsv3.RateLimitRequest) {
	for _, p := range r.GetDescriptors() {
		for _, e := range p.GetEntries() {
			d.entries = append(d.entries, descriptors.Entry{Key: e.GetKey(), Value: e.GetValue()})
		}
	}
	rest := d.entries // grown to its end: shares of it stay valid
	for i, p := range r.GetDescriptors() {
		n := len(p.GetEntries())
		d.parts[i].entries, rest = rest[:n:n], rest[n:]
	}
}

// match finds the rule and the caller of a descriptor.
func (d *decision) match(p *part, r *rlcommonv3.RateLimitDescriptor) error {
	p.grant = d.caller(p.entries)
	if d.rules == nil {
		return nil
	}
	if o := r.GetLimit(); o != nil {
		rule, err := d.server.o.Book.Override(d.rules, p.entries, descriptors.Override{
			Unit:            descriptors.Unit(o.GetUnit()),
			UnitMultiplier:  o.GetUnitMultiplier().GetValue(),
			RequestsPerUnit: o.GetRequestsPerUnit(),
		})
		p.rule = rule
		return err
	}
	p.rule = d.rules.Match(p.entries)
	p.quota = p.rule != nil && (p.rule.Quota || d.policy.Quota)
	return nil
}

// caller finds whom a descriptor names, nil if nobody or nobody known.
func (d *decision) caller(entries []descriptors.Entry) *consumers.Grant {
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
	return nil
}

// credential finds the grant of a credential, with its scheme or without.
func (d *decision) credential(value string) *consumers.Grant {
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
	return nil
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
		for j := 0; p.grant != nil && j < i; j++ {
			q := &d.parts[j]
			if q.grant == nil || q.grant.Consumer.ID != p.grant.Consumer.ID || q.refund != p.refund {
				continue
			}
			if q.grant.Token != "" && p.grant.Token != "" && q.grant.Token != p.grant.Token {
				continue // two tokens of one consumer, each with buckets of its own
			}
			if q.outranks(p) {
				p.grant = nil
			} else {
				q.grant = nil
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
		if d.parts[i].grant != nil {
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
