// Package telemetry tells what Tollgate does: Prometheus metrics, the refusal
// log, and who is busiest.
//
// An [Observer] is told of every decision on the deciding goroutine. It
// allocates nothing there and takes no lock that another request could hold for
// long. Whatever callers choose is bounded: label values come from the
// configuration or a fixed set, only the busiest consumers are counted one by
// one, and a storm of refusals becomes one line and then a count.
//
// Nothing here sees a credential, and the query of a path is cut off before it
// is logged, since it may hold one.
package telemetry
