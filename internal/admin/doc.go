// Package admin is the admin API: HTTP and JSON under /v1/, and the client that
// the command line is made of.
//
// A change is in force, and on disk, when its answer arrives. Every error is an
// application/problem+json document (RFC 9457). Who may call is decided once for
// all calls: with an admin token configured, whoever shows it; without one, only
// the machine itself, and no web page that it happens to have open: a foreign
// Host or Origin and bodies of another type than JSON are refused.
//
//	c := admin.Client{Server: "http://127.0.0.1:8080", Token: token}
//	issued, err := c.IssueToken(ctx, "billing", admin.NewToken{ID: "prod"})
package admin
