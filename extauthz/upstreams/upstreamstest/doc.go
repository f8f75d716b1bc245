// Package upstreamstest is an upstream that throttles, in memory, and a way to
// send it traffic through an [upstreams.Upstream]. It is for tests inside a
// testing/synctest bubble, where ten minutes take none.
package upstreamstest
