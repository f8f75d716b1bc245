// Package mysql keeps consumers in MySQL 8.0.16 or MariaDB 10.4, or newer, shared
// by every instance of Tollgate that names the same database.
//
//	consumers:
//	  source: mysql
//	  dsn: tollgate:${PASSWORD}@tcp(db.example:3306)/tollgate?tls=true   # or mysql://USER:PASSWORD@HOST:PORT/DATABASE
//	  poll: 1s
//
// The tables (see [sqlstore]) are made by the first instance that starts on an
// empty database; its user needs CREATE and TRIGGER then (and MySQL with a binary
// log wants log_bin_trust_function_creators=1 of one without SUPER). Anybody's SQL
// may change them, and is in force within poll. Times are in UTC.
//
//	UPDATE tollgate_consumers SET limits = '5/s' WHERE id = 'billing';
//	INSERT INTO tollgate_consumers (id, limits) VALUES ('search', '[{"rate": "100/s", "burst": 200}]');
//	INSERT INTO tollgate_tokens (consumer, id, sha256) VALUES ('search', 'prod', UNHEX(SHA2('the token', 256)));
//	INSERT INTO tollgate_settings (name, value) VALUES ('mode', 'shadow');
//
// What no trigger sees (TRUNCATE, a restored backup) is found by the comparison of
// everything every five minutes, and by POST /v1/refresh. What limiters have used
// is not in the database: each instance counts by itself and keeps its quotas in
// its data directory.
package mysql
