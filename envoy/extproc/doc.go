// Package extproc is Envoy's external processing service
// (envoy.service.ext_proc.v3.ExternalProcessor) in its one use here: it tells an
// upstream's throttle what that upstream answered, before the caller is told.
//
//	extprocv3.RegisterExternalProcessorServer(g, extproc.New(extproc.Options{Upstreams: find, Clock: c}))
//
// # What Envoy has to send
//
// Response headers, with the attributes response.code_details and request.host
// and with ext_authz's dynamic metadata; no body and nothing of the request.
// `tollgate envoy egress` prints such a filter. Envoy opens a stream for each
// answer, and holds the answer's headers back until its first message has been
// answered. Where a signal of the upstream looks into the body of such a status,
// the service asks for the body (mode_override) and is sent it before any of the
// answer goes on; else it ends the stream, and the answer goes on at once.
//
// # Guarantees
//
//   - An answer is never changed, and never refused: every reply says CONTINUE
//     without a mutation. What cannot be understood ends the stream, after which
//     Envoy lets the answer pass.
//   - Only answers of the upstream itself count: not what Envoy made up because
//     the upstream could not be reached, and not Tollgate's own refusals.
//   - Streams are bounded in number and in time, what is read of a body in
//     length, before and after gunzip. What began before the server ends is
//     finished.
package extproc
