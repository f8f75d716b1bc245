package ratelimit

import (
	"strconv"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz"
)

// writeHeaders adds what the client sees beside the status: the rate-limit
// headers, and of a refusal the same as ext_authz answers.
func (d *decision) writeHeaders() {
	if p := d.policy.Plain; p != nil {
		d.writePlain(p)
		return
	}
	refusal := -1
	if d.refused {
		refusal = d.decisive(&d.parts[d.deciding])
	}
	d.reply.Compose(d.policy.Headers, d.claims, refusal, d.server.o.Random())
	d.headers, d.body = append(d.headers, d.reply.Headers...), d.reply.Body
}

// writePlain adds envoyproxy/ratelimit's three headers, of the limit that
// refuses or else the one with the least left.
func (d *decision) writePlain(names *PlainHeaders) {
	var found *descriptorStatus
	for i := range d.statuses {
		if s := &d.statuses[i]; s.limited && (found == nil || s.before(found)) {
			found = s
		}
	}
	if found == nil {
		return
	}
	d.number(names.Limit, int64(found.requests))
	d.number(names.Remaining, int64(found.remaining))
	d.number(names.Reset, int64((found.reset+time.Second-1)/time.Second))
}

// number adds a header with a number, unless it has no name.
func (d *decision) number(name string, n int64) {
	if name == "" {
		return
	}
	start := len(d.text)
	d.text = strconv.AppendInt(d.text, n, 10)
	d.headers = append(d.headers, extauthz.ReplyHeader{Name: name, Value: d.text[start:len(d.text):len(d.text)]})
}

// before reports whether the headers should rather tell of s than of o.
func (s *descriptorStatus) before(o *descriptorStatus) bool {
	if s.over != o.over {
		return s.over
	}
	return s.remaining < o.remaining
}
