package sqlstore

import (
	"net/url"
	"strings"
)

// Redactor returns a function that takes a DSN and its password out of texts,
// as they stand and percent-encoded.
func Redactor(dsn, password string) func(string) string {
	pairs := []string{dsn, "(dsn)"}
	for _, secret := range []string{password, url.QueryEscape(password), url.PathEscape(password), url.UserPassword("", password).String()} {
		if secret = strings.TrimPrefix(secret, ":"); secret != "" {
			pairs = append(pairs, secret, "(password)")
		}
	}
	return strings.NewReplacer(pairs...).Replace
}
