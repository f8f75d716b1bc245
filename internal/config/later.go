package config

import (
	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
)

// What this file reads is part of the format but not of this build: it is
// checked as strictly as the rest, and then said to be missing.

// notYet makes the use of a missing part a problem.
func notYet(n yamlfile.Node, what string) {
	n.Errorf("%s: not supported yet by this version: leave it out", what)
}

// text checks that a value is a scalar whose variables can be expanded.
func text(n yamlfile.Node) { _ = n.String() }

func cluster(n yamlfile.Node) {
	var redis yamlfile.Node
	each(n, map[string]func(yamlfile.Node){
		"redis": func(n yamlfile.Node) {
			redis = n
			each(n, map[string]func(yamlfile.Node){
				"addresses":       func(n yamlfile.Node) { n.Strings() },
				"username":        text,
				"password":        text,
				"sentinel_master": text,
				"tls": func(n yamlfile.Node) {
					each(n, map[string]func(yamlfile.Node){"ca": text, "cert": text, "key": text, "server_name": text})
				},
			})
		},
		"mode":      func(n yamlfile.Node) { n.OneOf("leased", "strict") },
		"on_error":  func(n yamlfile.Node) { n.OneOf("local", "allow", "deny") },
		"instances": func(n yamlfile.Node) { n.Int(1, 10_000) },
	})
	if !redis.Null() {
		notYet(redis, "cluster")
	}
}
