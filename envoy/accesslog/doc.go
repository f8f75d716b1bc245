// Package accesslog is Envoy's access log service
// (envoy.service.accesslog.v3.AccessLogService) in its one use here: it tells an
// upstream's throttle what that upstream answered, where status and headers
// are enough.
//
//	alsv3.RegisterAccessLogServiceServer(g, accesslog.New(accesslog.Options{Upstreams: registry, Clock: c}))
//
// It is the cheaper way beside package extproc: nothing stands in the path of
// the answers. The price is that an entry comes when the answer has been given
// to the caller, about a fifth of a millisecond later when Envoy does not
// buffer, and after a long answer only at its end. Entries that Envoy could not
// deliver are lost.
//
// `tollgate envoy egress --learn access_log` prints such a log, filtered to the
// upstream's own answers with the statuses of its signals. What is sent beside
// these is told all the same; what Envoy or Tollgate answered is left out here too.
package accesslog
