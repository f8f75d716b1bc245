// Package ratelimit answers Envoy's rate limit filter
// (envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit) and, over HTTP,
// those who ask envoyproxy/ratelimit's /json. README.md says what differs from it.
//
// # Model
//
// A request names a domain and brings descriptors. Each descriptor takes from
// the limits of the rule that matches it and, where it has an entry `token` or
// `consumer`, from that caller's own limits: the same limiters that ext_authz
// takes from. All that a request takes is taken together, or nothing is.
//
//   - hits_addend 0, or none in the request, means 1. A descriptor's own
//     hits_addend wins; there 0 is a look: OVER_LIMIT when one hit would be, and
//     nothing is taken. Negative hits are given back, once the rest is admitted.
//   - A quota_mode descriptor refuses only when every quota_mode descriptor of
//     the request does.
//   - A rule that replaces another of the same request, by name, stands in its
//     place.
//   - A descriptor that brings a limit of its own is limited by that one.
//
// # Who calls
//
// The entry `token` is a credential, as it stands in the request or with its
// scheme. After an entry `consumer` it may also be the id of one of that
// consumer's tokens, which is what ext_authz leaves in Envoy's metadata. The
// entry `consumer` alone is a consumer's id. A caller that nobody knows has no
// limits of its own, and is told from others by no counter but those of rules.
// However many descriptors name a caller, a request takes from its limits once.
//
// # What cannot be meant
//
// An empty domain, no descriptors, an entry without a key, an unknown unit or
// hits beyond 2^53 are INVALID_ARGUMENT. A domain without rules is OK, and
// counted.
package ratelimit
