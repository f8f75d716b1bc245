package extauthz

import (
	"strings"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/limits"
)

// describe makes the request's descriptors and notes the rules that match them.
func (d *Verdict) describe(v *View, domain *descriptors.Domain) {
	if domain == nil {
		return
	}
	for _, line := range d.plan.policy.Descriptors {
		from := len(d.entries)
		if !d.appendLine(v, line) {
			d.entries = d.entries[:from]
			continue
		}
		matched := false
		for rule := domain.Match(d.entries[from:]); rule != nil; rule = rule.Next {
			d.matches = append(d.matches, match{rule: rule, from: from, to: len(d.entries)})
			matched = true
		}
		if !matched {
			d.entries = d.entries[:from]
		}
	}
}

// appendLine appends the entries of one descriptor, false if a source is missing.
func (d *Verdict) appendLine(v *View, line []Source) bool {
	for i := range line {
		s := &line[i]
		value, ok := d.value(v, s)
		if ok && s.Regex != nil {
			value, ok = firstGroup(s, value)
		}
		if !ok || value == "" {
			return false
		}
		d.entries = append(d.entries, descriptors.Entry{Key: s.Key, Value: value})
	}
	return true
}

// value returns what a source holds in this request.
func (d *Verdict) value(v *View, s *Source) (string, bool) {
	switch s.From {
	case "consumer":
		return d.Consumer, true
	case "token":
		return d.Token, true
	case "label":
		value, ok := d.Labels[s.Name]
		return value, ok
	case "method":
		return v.Method, true
	case "path":
		return NormalPath(v.Path), true
	case "host":
		return normalHost(v.Host), true
	case "header":
		return v.header(s.Name)
	case "query":
		return queryValue(v.query(), s.Name)
	case "remote_address":
		return v.RemoteAddress, true
	case "principal":
		return v.Principal, true
	case "metadata":
		return v.metadata(s.Name, s.Field)
	case "context":
		return v.extension(s.Name)
	}
	return "", false
}

// normalHost returns a host without its port and final dot, in lower case.
func normalHost(host string) string {
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host = host[:i]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func firstGroup(s *Source, value string) (string, bool) {
	m := s.Regex.FindStringSubmatchIndex(value)
	switch {
	case m == nil:
		return "", false
	case len(m) > 2 && m[2] < 0:
		return "", false
	case len(m) > 2:
		return value[m[2]:m[3]], true
	}
	return value[m[0]:m[1]], true
}

// claim makes a claim of every limit that the request is under: the consumer's
// own and those of the rules it matched, each limiter once.
func (d *Verdict) claim(own *consumers.Grant, book *descriptors.Book, cost int64) {
	for i := range own.Len() {
		d.addClaim(own.Limiter(i), cost, false, -1)
	}
	for i := range d.matches {
		m := &d.matches[i]
		if m.rule.Unlimited || d.replaced(m.rule) {
			continue
		}
		if l := book.Limiter(d.At, m.rule, d.entries[m.from:m.to]); l != nil {
			d.addClaim(l, cost, m.rule.Shadow, i)
		}
	}
}

func (d *Verdict) addClaim(l *limits.Limiter, cost int64, shadow bool, from int) {
	for i := range d.Claims {
		if d.Claims[i].Limiter == l {
			return
		}
	}
	d.Claims = append(d.Claims, limits.Claim{Limiter: l, N: cost, Shadow: shadow || d.plan.policy.Mode == Shadow})
	d.claimed = append(d.claimed, from)
}

// replaced reports whether another rule of this request replaces r.
func (d *Verdict) replaced(r *descriptors.Rule) bool {
	for i := range d.matches {
		if o := d.matches[i].rule; o != r && len(o.Replaces) > 0 && r.ReplacedBy(o) {
			return true
		}
	}
	return false
}

// tally has each rule of the request count what its limit has said.
func (d *Verdict) tally() {
	if len(d.matches) == 0 {
		return
	}
	for i := range d.Claims {
		if m := d.claimed[i]; m >= 0 {
			d.matches[m].rule.Count(d.Claims[i].N, d.Claims[i].Decision, d.Allowed())
		}
	}
	for i := range d.matches {
		if r := d.matches[i].rule; r.Unlimited && !d.replaced(r) {
			r.Count(d.Cost, limits.Decision{Allowed: true}, d.Allowed())
		}
	}
}
