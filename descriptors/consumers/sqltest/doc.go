// Package sqltest runs real databases for tests: a PostgreSQL or a MariaDB of
// the machine's own packages, on a socket in a temporary folder, as an
// unprivileged user where the test is root. A test whose database is not
// installed is skipped and says what to install.
package sqltest
