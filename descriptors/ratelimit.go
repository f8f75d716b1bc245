package descriptors

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// valid reports what is wrong with a limit's values together.
func (b *builder) valid(l *RateLimit, s spot) bool {
	ok := true
	wrong := func(key, format string, args ...any) {
		b.report(s, key, format, args...)
		ok = false
	}
	for _, name := range l.Replaces {
		switch {
		case name == "":
			wrong("replaces", "replaces: name is missing: want the name of another limit")
		case name == l.Name:
			wrong("replaces", "replaces: %q is this limit's own name: want the name of another limit", name)
		}
	}
	if l.Unlimited {
		if l.Unit != UnitUnset {
			wrong("unit", "unit: an unlimited rate_limit has none: leave out unit or unlimited")
		}
		for key, given := range map[string]bool{
			"algorithm": l.Algorithm != "", "burst": l.Burst != 0, "unit_multiplier": l.UnitMultiplier != 0,
			"max_wait": l.MaxWait != 0, "on_error": l.OnError != "",
		} {
			if given {
				wrong(key, "%s: an unlimited rate_limit has none: leave out %s or unlimited", key, key)
			}
		}
		return ok
	}
	if l.at != nil && !l.counts {
		wrong("requests_per_unit", "requests_per_unit is missing: want a number (0 blocks every request)")
	}
	if l.Burst != 0 && l.Algorithm != string(limits.Rate) {
		wrong("burst", "burst: only algorithm: rate has one")
	}
	if l.Unit.length() == 0 {
		wrong("unit", "unit is missing: want one of %s", unitNames)
	} else if _, err := window(l.Unit, l.UnitMultiplier, l.Algorithm); err != nil {
		wrong("unit_multiplier", "unit_multiplier: %v", err)
	}
	return ok
}

// maxWindow is the longest window, which is about what [limits.Compile] takes.
const maxWindow = 36 * 365 * 24 * time.Hour

// window returns the length of a limit's window: 0 where it is a calendar month
// or year. Several of those are so many times 30 or 365 days, as in
// envoyproxy/ratelimit: from where to count calendar months by the three is nobody's to say.
func window(u Unit, multiplier uint32, algorithm string) (time.Duration, error) {
	multiplier = max(multiplier, 1)
	if (u == Month || u == Year) && isFixed(algorithm) && multiplier == 1 {
		return 0, nil
	}
	if int64(multiplier) > int64(maxWindow/u.length()) {
		return 0, errors.New("the window is longer than 36 years")
	}
	return time.Duration(multiplier) * u.length(), nil
}

func isFixed(algorithm string) bool {
	return algorithm == "" || algorithm == string(limits.FixedWindow)
}

// limit translates a valid rate limit.
func (l *RateLimit) limit(shadow bool) (limits.Limit, error) {
	period, err := window(l.Unit, l.UnitMultiplier, l.Algorithm)
	if err != nil {
		return limits.Limit{}, err
	}
	limit := limits.Limit{
		Name: l.Name, Kind: limits.Kind(cmp.Or(l.Algorithm, string(limits.FixedWindow))), N: int64(l.RequestsPerUnit),
		Period: period, Burst: l.Burst, MaxWait: l.MaxWait, Shadow: shadow, OnError: limits.OnError(l.OnError),
	}
	if period == 0 {
		limit.Kind, limit.Calendar = limits.Quota, limits.Calendar(l.Unit.String())
	}
	return limit, nil
}

// group names the rule whose limiters count together when a table is full: a
// flood of one rule's descriptors must not cost those of another their burst.
func group(domain, path, tag string) string { return strings.Join([]string{domain, path, tag}, "\x00") }

// spec compiles a limit, equal ones once.
func (b *builder) spec(l *RateLimit, shadow bool) (*limits.Spec, error) {
	limit, err := l.limit(shadow)
	if err != nil {
		return nil, err
	}
	if spec := b.specs[limit]; spec != nil {
		return spec, nil
	}
	spec, err := limits.Compile(limit)
	if err == nil {
		b.specs[limit] = spec
	}
	return spec, err
}

// tags returns what tells the counters of a descriptor's limits apart: nothing
// for the longest, so that it goes on with the counter of a single limit, then
// the name, or else the algorithm and window.
func tags(ls []RateLimit) []string {
	tags := make([]string, len(ls))
	longest, length := 0, -1.0
	for i := range ls {
		l := &ls[i]
		tags[i] = windowTag(l.Unit, l.UnitMultiplier, l.Algorithm)
		if l.Name != "" {
			tags[i] = "name " + l.Name
		}
		this := float64(max(l.UnitMultiplier, 1)) * float64(l.Unit.length())
		if this > length || this == length && tags[i] < tags[longest] {
			longest, length = i, this
		}
	}
	for i := range ls {
		if i != longest && tags[i] == tags[longest] {
			return tags // two of a kind, which is a problem to report
		}
	}
	if len(tags) > 0 {
		tags[longest] = ""
	}
	return tags
}

func windowTag(u Unit, multiplier uint32, algorithm string) string {
	return fmt.Sprintf("%s %d %s", cmp.Or(algorithm, string(limits.FixedWindow)), max(multiplier, 1), u)
}

func sameness(l *RateLimit) string {
	if l.Name != "" {
		return fmt.Sprintf("name %q", l.Name)
	}
	return "algorithm and unit"
}
