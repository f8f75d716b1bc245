// Package postgres keeps consumers in PostgreSQL 13 or newer, shared by every
// instance of Tollgate that names the same database.
//
//	consumers:
//	  source: postgres
//	  dsn: postgres://tollgate:${PASSWORD}@db.example:5432/tollgate?sslmode=verify-full
//	  poll: 1s
//
// The tables (see [sqlstore]) are made in the first schema of the user's search
// path by the first instance that starts on an empty database. Anybody's SQL may
// change them, and is in force at once: triggers send a NOTIFY, and every instance
// listens. Where notifications do not come through (a pooler between), it is in
// force within poll.
//
//	UPDATE tollgate_consumers SET limits = '5/s' WHERE id = 'billing';
//	INSERT INTO tollgate_consumers (id, limits) VALUES ('search', '[{"rate": "100/s", "burst": 200}]');
//	INSERT INTO tollgate_tokens (consumer, id, sha256) VALUES ('search', 'prod', sha256('the token'));
//	INSERT INTO tollgate_settings (name, value) VALUES ('mode', 'shadow');
//
// What limiters have used is not in the database: each instance counts by itself
// and keeps its quotas in its data directory.
package postgres
