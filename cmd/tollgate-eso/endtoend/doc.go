// Package endtoend holds the tests of the companion against a real API server,
// and against External Secrets itself. They share one cluster; each has stores
// and a namespace of its own.
//
//	make test-eso
package endtoend
