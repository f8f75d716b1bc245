// Package console is the page at / of the HTTP port: who is refused, by which
// limit, and what an operator can do about it, in a browser.
//
// It is HTML, CSS and a few JavaScript modules, embedded as they stand in web/:
// nothing is built and nothing is loaded from elsewhere. All that it shows and
// changes goes through the admin API.
//
// With an admin token configured, a person signs in with it once. The browser
// then holds the id of a session in a cookie that no script can read and that
// is sent with no request from another site; the admin API lets such requests
// in as it does the token. A session ends after half a day, with the sign-out,
// with a restart, and when the admin token is changed.
package console
