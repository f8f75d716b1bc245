// Package yamlfile reads YAML strictly and tells people where they went wrong.
//
// Every file that Tollgate reads goes through it: configuration, consumers and
// rules. A reader asks a [Map] for the keys it knows and calls [Map.Done];
// whatever was not asked for is an unknown key. Problems do not stop the
// reading: they are collected with file, line and column, and [Document.Err]
// returns all of them, so that one look at the output is enough to repair a
// file.
//
//	doc := yamlfile.Parse("tollgate.yaml", data, yamlfile.Options{})
//	m := doc.Root().Map()
//	var domain string
//	if n, ok := m.Get("domain"); ok {
//		domain = n.String()
//	}
//	m.Done()
//	if err := doc.Err(); err != nil { … }
//
// Duplicate keys, a second document, aliases that are unknown, run in a circle
// or stand for too much, tags, and values of another type are problems. A key
// whose value is null counts as absent; anchors, aliases and merge keys (<<) may
// be used. Columns count characters. Messages quote a value as the file has it,
// never what an environment variable holds. Nothing here does I/O: callers pass
// bytes.
package yamlfile
