// Package sqlstore is what the sources in SQL databases have in common.
//
// A [Follower] keeps a registry like a database: it loads everything once, in
// pages, then reads what changed, and now and then compares everything. While
// the database is away decisions go on with what is known, and the follower
// tries again at growing, jittered intervals. A consumer whose rows cannot be
// used (a limit that cannot be read, a secret that another has) stays as it was
// in force, and is named in the log.
//
// A [Store] is a database with Tollgate's own tables, made by the schema of its
// [Dialect]:
//
//	tollgate_consumers  id, plan, limits, labels, disabled
//	tollgate_tokens     consumer, id, sha256, expires, created, previous, previous_until
//	tollgate_settings   name (mode, default_limit), value
//	tollgate_changes    who changed: written by triggers, read by every instance
//	tollgate_schema     the version
//
// Limits stand as in the admin API, [{"rate": "100/s"}], or in short, 100/s; NULL is
// the plan's (plans are in tollgate.yaml)
// or the default. All of it may be changed by anybody's SQL: triggers
// number each change, and an instance reads exactly the consumers that changed.
// Numbers of transactions that end late are waited for, so that none is missed.
// Changes through the Store carry a version, so that of two instances that change
// one consumer at once one is told of the conflict.
package sqlstore
