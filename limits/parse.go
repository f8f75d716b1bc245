package limits

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// ParseRate reads N/UNIT, where UNIT is s, m, h, d or a Go duration: "100/s",
// "200/10s", "1/2s", "5/1h30m". N is a whole number up to [MaxN].
func ParseRate(s string) (n int64, period time.Duration, err error) {
	count, unit, ok := strings.Cut(s, "/")
	if !ok {
		return 0, 0, fmt.Errorf("rate %q: want N/UNIT, such as 100/s", s)
	}
	period, err = parseUnit(unit)
	if err != nil {
		return 0, 0, fmt.Errorf("rate %q: %w", s, err)
	}
	n, err = parseCount(count)
	if err != nil {
		return 0, 0, fmt.Errorf("rate %q: %w%s", s, err, wholeRate(count, period))
	}
	return n, period, nil
}

// FormatRate writes what [ParseRate] reads.
func FormatRate(n int64, period time.Duration) string {
	return strconv.FormatInt(n, 10) + "/" + formatUnit(period)
}

// ParseQuota reads N/PERIOD, where PERIOD is minute, hour, day, week, month or
// year: "10000/day". N is a whole number up to [MaxN].
func ParseQuota(s string) (n int64, c Calendar, err error) {
	count, unit, ok := strings.Cut(s, "/")
	if !ok {
		return 0, "", fmt.Errorf("quota %q: want N/PERIOD, such as 10000/day", s)
	}
	c = Calendar(unit)
	if c.length() == 0 {
		return 0, "", fmt.Errorf("quota %q: period %q: want one of minute, hour, day, week, month, year", s, unit)
	}
	n, err = parseCount(count)
	if err != nil {
		return 0, "", fmt.Errorf("quota %q: %w", s, err)
	}
	return n, c, nil
}

// FormatQuota writes what [ParseQuota] reads.
func FormatQuota(n int64, c Calendar) string { return strconv.FormatInt(n, 10) + "/" + string(c) }

func parseCount(s string) (int64, error) {
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%q: want a whole number of 0 or more", s)
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case s == "":
		return 0, fmt.Errorf("no number before the slash")
	case err != nil || n > MaxN:
		return 0, fmt.Errorf("%s: want at most 2^53 = %d", s, int64(MaxN))
	}
	return n, nil
}

func parseUnit(s string) (time.Duration, error) {
	switch s {
	case "s":
		return time.Second, nil
	case "m":
		return time.Minute, nil
	case "h":
		return time.Hour, nil
	case "d":
		return 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, fmt.Errorf("unit %q: want s, m, h, d or a duration such as 10s or 1h30m", s)
	case d <= 0:
		return 0, fmt.Errorf("unit %q: want more than 0", s)
	}
	return d, nil
}

// formatUnit is the shortest text that parseUnit reads as d.
func formatUnit(d time.Duration) string {
	switch d {
	case time.Second:
		return "s"
	case time.Minute:
		return "m"
	case time.Hour:
		return "h"
	case 24 * time.Hour:
		return "d"
	}
	return FormatDuration(d)
}

// FormatDuration writes a duration without parts that are zero: 1h, not 1h0m0s.
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// wholeRate suggests how to write a decimal rate with a whole number.
func wholeRate(count string, period time.Duration) string {
	if strings.Trim(count, "0123456789.") != "" || len(count) > 20 {
		return ""
	}
	r, ok := new(big.Rat).SetString(count)
	if !ok || r.Sign() <= 0 || !r.Num().IsInt64() || !r.Denom().IsInt64() {
		return ""
	}
	n, by := r.Num().Int64(), r.Denom().Int64()
	if n > MaxN || by > int64(longest/period) {
		return ""
	}
	return fmt.Sprintf("; write %s", FormatRate(n, time.Duration(by)*period))
}
