package ratelimit

import "github.com/tollgate-dev/tollgate/extauthz"

// Policy is the configured part of answers. It is immutable; a Server swaps it
// whole. The zero value enforces and sends the IETF headers.
type Policy struct {
	Mode    extauthz.Mode
	Headers extauthz.Headers
	Schemes []string // that a credential may be written with, in any letter case; nil means Bearer

	CountRefused bool // refused hits use up what is left of the limits
	Quota        bool // every rule counts as quota_mode
	Metadata     bool // answers carry the metadata of the rules that admitted

	Waiting bool // for the first rules: nothing can be decided, and calls are UNAVAILABLE

	// Plain makes answers those of envoyproxy/ratelimit: these headers in
	// place of Headers, no body and no header that tells Tollgate's refusals.
	Plain *PlainHeaders
}

// PlainHeaders are the names of envoyproxy/ratelimit's headers. An empty name
// leaves its header out.
type PlainHeaders struct{ Limit, Remaining, Reset string }

// schemes of credentials where the policy names none.
var bearer = []string{"Bearer"}

func (p *Policy) schemes() []string {
	if p.Schemes == nil {
		return bearer
	}
	return p.Schemes
}
