// Package server is a whole running Tollgate in one value: the decision and all
// that surrounds it, from the listeners to the files that are watched. `tollgate
// serve`, `tollgate demo` and tests start the same.
//
//	s, err := server.Start(ctx, server.Options{ConfigPath: "tollgate.yaml"})
//	…
//	err = s.Drain(ctx) // on SIGTERM; or s.Close() at once
//
// Start reads and checks everything before it opens a port, and releases what it
// opened when it fails. A reload does the same with what runs: the new files are
// in force whole or not at all.
package server
