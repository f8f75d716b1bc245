// Package extauthz answers Envoy's question whether a request may pass
// (envoy.service.auth.v3.Authorization/Check): it finds the consumer token in
// the request, resolves it to a consumer, takes from that token's limits and
// from those of the rules that the request's descriptors match, and answers:
// admit, 401, 403 or 429.
//
// # Model
//
// A [View] is what a decision reads of a request. [Server.Decide] turns it into
// a [Verdict], in plain Go: it knows no Envoy message and, once warm, allocates
// nothing. Translation stands in files of its own: check.go makes
// a View of a CheckRequest, answer.go composes the HTTP side of a Verdict, and
// response.go writes it as a CheckResponse. What to look for is a [Policy],
// which [Server.SetPolicy] swaps whole.
//
// # Guarantees
//
//   - A refusal is a Verdict. An error means that nothing could be decided; it
//     reaches Envoy as an RPC error, so that Envoy's failure_mode_allow counts.
//     A refusal is never an RPC error, and never has the status 0 that Envoy
//     takes for an admission.
//   - All limits of a request are taken together or none is.
//   - A token counts as what it is, not as how it is spelled: a repeated,
//     comma-joined or otherwise ambiguous credential is refused.
//   - The upstream sees no x-tollgate-* header that Tollgate did not set and,
//     unless the policy says otherwise, no credential.
//   - Nothing that a client sends reaches a header, a body or Envoy's metadata
//     with a control character or broken UTF-8 in it.
//
// # Identities that Envoy authenticated
//
// A credential at a place {principal: true} or {metadata: […]} is no secret:
// Envoy has checked it (a client certificate, a JSON Web Token), and what
// stands there is the id of a consumer. All requests of such an identity share
// the limits of calls by id. A SPIFFE id becomes a consumer id by leaving out
// spiffe:// and writing @ for each slash, which no two SPIFFE ids share:
// spiffe://cluster.local/ns/shop/sa/cart is cluster.local@ns@shop@sa@cart.
//
// # Context extensions
//
// A route adjusts the decision by ext_authz's context_extensions: mode
// (authenticate: only 401 and 403; limit: only 429, for a request that another
// filter has authenticated, whose unknown token is then no reason to refuse;
// both, the default), domain, cost, answer (problem, apollo, keeper) and
// upstream. A cost of 0 takes nothing but is refused when a cost of 1 would be.
// A request that is only authenticated leaves the first of its caller's limits in
// the metadata as rate_limit, for a limit of Envoy's ratelimit filter to override
// a rule with, where that knows its unit.
//
// # Requests that lead out
//
// A request goes to an upstream that throttles (package upstreams) where its
// route says so, by the upstream's id or with * for that of the host; where that
// is none, it passes. Without the extension the host decides alone, unless the
// route names a mode or a domain: since a client chooses the host it sends, name
// one on routes that lead in where upstreams are configured. Nobody is
// authenticated on the way out, nothing is stripped but x-tollgate-*, and the
// policy's mode does not matter.
//
// A Server in one line:
//
//	authv3.RegisterAuthorizationServer(g, extauthz.New(extauthz.Options{Registry: r, Book: b, Queue: q, Clock: c}, policy))
package extauthz
