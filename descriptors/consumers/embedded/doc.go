// Package embedded keeps consumers, settings and what limiters must remember in
// one file of Tollgate's own, a bbolt database in the data directory.
//
// A change is on disk before its call returns. Changes that arrive together
// share one fsync. What limiters remember (quotas, starts of a grace, and of
// rules' limits those of a minute or longer) is written at most a second after
// it happened, and in full by [DB.Close]. Secrets are
// never here, only their hashes.
//
//	db, err := embedded.Open(filepath.Join(dir, "tollgate.db"), embedded.Options{Clock: clock})
//	…
//	defer db.Close()
//	if err := db.Remember(registry); err != nil { … } // before the first request
//	if err := db.RememberTable(table); err != nil { … }
//	store, err := db.Consumers(registry, plans)       // where this is the source
//
// One process at a time has the file: a second one is told so after a second.
package embedded
