package extauthz

import "regexp"

// Mode is the global switch over limits. 401 and 403 do not depend on it.
type Mode int

// The modes.
const (
	Enforce Mode = iota
	Shadow       // decide and count, refuse nobody
	Off          // do not even decide
)

// Headers says which rate-limit headers clients get.
type Headers int

// The header styles.
const (
	HeadersIETF    Headers = iota // RateLimit-Policy and RateLimit, as draft-ietf-httpapi-ratelimit-headers-11
	HeadersDraft03                // X-RateLimit-*, as Envoy itself
	HeadersNone
)

// Place is where a credential may stand; exactly one of its fields but Scheme is set.
type Place struct {
	Header    string // lower case
	Scheme    string // of Header: "Bearer"; "none" or empty: the whole value; "apollo": as Apollo's portal reads it
	Query     string
	Cookie    string
	Principal bool     // the client certificate's, as the id of a consumer
	Metadata  []string // namespace, then the path of keys, to the id of a consumer
}

// Source is one entry of a descriptor line: where a descriptor's key takes its value from.
type Source struct {
	Key   string
	From  string         // consumer, token, label, method, path, host, header, query, remote_address, principal, metadata, context
	Name  string         // of label, header (lower case), query, context; of metadata the namespace
	Field string         // of metadata: the key
	Regex *regexp.Regexp // its first group, or the whole match, is the value; nil: all of it
}

// Policy is the configured part of a decision. It is immutable; a Server swaps it whole.
type Policy struct {
	Credentials []Place
	Strip       bool
	Anonymous   string // consumer of requests without a token; empty: refuse them
	Mode        Mode
	Headers     Headers
	Domain      string
	Descriptors [][]Source

	RemoteAddress bool // find the client's address also where no descriptor names it

	Waiting bool // for the consumers: nothing can be decided, and calls are UNAVAILABLE
}
