// Package demo shows Tollgate at work on one machine: a server, an upstream and
// a real Envoy on loopback, three consumers with tokens and limits, and some
// traffic. It is what `tollgate demo` runs.
//
// The usual ports are used where they are free, and others where not. All that
// is started ends with [Run], and its files go.
package demo
