// Package xds gets rate limit rules from an xDS management server, as Envoy
// Gateway runs one.
//
// A [Client] keeps one aggregated, state-of-the-world stream open and asks for
// every ratelimit.config.ratelimit.v3.RateLimitConfig. What arrives is checked as
// rule files are, and whole: good rules are applied and acknowledged, bad ones
// are refused with every problem named, and what was in force stays. It stays
// too while the server is away; attempts to come back grow apart exponentially.
//
//	c, err := xds.New(xds.Options{Server: "localhost:18000", Apply: book.Swap})
//	…
//	err = c.Run(ctx) // until ctx ends
package xds
