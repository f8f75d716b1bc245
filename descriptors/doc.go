// Package descriptors names what a request is: it matches the descriptors that
// Envoy sends against rules, and finds the limiter of each.
//
// A descriptor is a list of entries, key and value, such as (tenant, acme)
// (path, /v1/pay). [Parse] reads rule files in envoyproxy/ratelimit's format into
// an immutable tree, [Rules]; [Domain.Match] walks it to the one [Rule] that a
// descriptor falls under; a [Book] holds the rules in force and gives each rule
// and descriptor its live limiter.
//
//	rules, err := descriptors.Parse(files, descriptors.Options{})
//	…
//	book := descriptors.NewBook(limits.NewTable(limits.TableOptions{}))
//	book.Swap(rules)
//	…
//	domain := book.Rules().Domain("mesh")
//	for rule := domain.Match(entries); rule != nil; rule = rule.Next {
//		limiter := book.Limiter(now, rule, entries)
//		…
//	}
//
// # Matching
//
// Entries are walked from left to right. At each level the exact key and value
// is tried first, then the values with wildcards (*, any number, each standing
// for any text) in the order of the file, then the key alone. There is no way
// back, and a limit applies only where the last entry arrives. What a match
// costs does not depend on the number of rules; only wildcards that share both
// their beginning and their end are tried one by one.
//
// Keys and values are compared apart. A rule for the key foo_bar does not catch
// the entry (foo, bar), and a wildcard does not reach over from one into the
// other.
//
// # Counting
//
// A counter belongs to a domain and the entries of a descriptor, whatever rule
// matches them: a reload that moves, renames or changes a limit goes on counting.
// Its key is length-prefixed, so that no value can be made to look like another
// descriptor, and of bounded size. Of several limits of one descriptor the one
// with the longest window has the counter that a single limit would have; the
// others are told apart by their name, or else by algorithm and unit. A fixed
// window whose limit changes keeps its count; other limits keep the share used.
//
// Windows are aligned to the Unix epoch in UTC: minutes, hours and days as
// clocks show them, weeks from Thursday 00:00 as in envoyproxy/ratelimit. Months
// and years are calendar months and years. For the algorithms without windows,
// and several at a time (unit_multiplier), they are 30 and 365 days.
//
// # Reading
//
// Reading is strict. Every problem is reported at once with its file, line and
// column. Unlike envoyproxy/ratelimit, a rate_limit without requests_per_unit is
// a problem and not a limit of 0, and so are a second document, a key given
// twice and a key in the wrong place. Nothing here does I/O: callers pass bytes,
// and choose which files are rules.
package descriptors
