// Package redistest runs the Redis of tests: a redis-server of a Debian package,
// on a free port of 127.0.0.1, which keeps nothing on disk and is killed when the
// test ends. A test that runs under -short, or where the program is not
// installed, is skipped.
//
// REDIS_SERVER and REDIS_CLI name other programs, as valkey-server or a
// redis-server of another version.
package redistest
