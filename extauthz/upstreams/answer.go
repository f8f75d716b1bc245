package upstreams

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// MaxBody is how much of a body signals look into.
const MaxBody = 64 << 10

// Answer is what an upstream answered to one request.
type Answer struct {
	Status int
	Header func(name string) string // the first value of a header, by its name in lower case; nil: there are none
	Body   []byte                   // the first MaxBody bytes, decoded; needed only where WantsBody says so
	Source string                   // who saw it, for the API: "response" (the default) or "access-log"
}

// header returns the first value of a header.
func (a *Answer) header(name string) string {
	if a.Header == nil {
		return ""
	}
	return a.Header(name)
}

// fits reports whether the answer is such a signal.
func (s *Signal) fits(a *Answer) bool {
	return s.Status == a.Status &&
		(s.Header == "" || a.header(s.Header) != "") &&
		(s.Body == "" || bytes.Contains(a.Body[:min(len(a.Body), MaxBody)], []byte(s.Body)))
}

// String says what was seen, as 403 throttled.
func (s *Signal) String() string {
	parts := []string{strconv.Itoa(s.Status)}
	for _, p := range []string{s.Header, s.Body} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, " ")
}

// asked returns how long a pause the answer asks for, 0 if it names none: the
// longer of Retry-After and the JSON member retry_after.
func (a *Answer) asked(now limits.Time) time.Duration {
	return max(retryAfter(a.header("retry-after"), a.header("date"), now), bodyRetryAfter(a.Body))
}

// retryAfter reads Retry-After in seconds or as a date (RFC 9110 section
// 10.2.3). A date counts from the answer's own Date, where it has one: the
// upstream's clock may be another than ours.
func retryAfter(value, date string, now limits.Time) time.Duration {
	value = strings.TrimSpace(value)
	if d, ok := seconds(value); ok {
		return d
	}
	until, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	from := now.Std()
	if t, err := http.ParseTime(date); err == nil {
		from = t
	}
	return max(0, until.Sub(from))
}

// bodyRetryAfter returns the first member retry_after of a JSON body, a number
// or a string of seconds. A body may be cut short, and need not be JSON at all.
func bodyRetryAfter(body []byte) time.Duration {
	if !bytes.Contains(body, []byte(`retry_after`)) {
		return 0
	}
	dec := json.NewDecoder(io.LimitReader(bytes.NewReader(body), MaxBody))
	dec.UseNumber()
	var before json.Token
	for {
		t, err := dec.Token()
		if err != nil {
			return 0
		}
		if before == "retry_after" {
			var text string
			switch v := t.(type) {
			case json.Number:
				text = v.String()
			case string:
				text = v
			}
			if d, ok := seconds(strings.TrimSpace(text)); ok {
				return d
			}
		}
		before = t
	}
}

// seconds reads a number of seconds that is not negative, rounded up to a nanosecond.
func seconds(s string) (time.Duration, bool) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) || f < 0 {
		return 0, false
	}
	if f *= float64(time.Second); f >= math.MaxInt64 {
		return math.MaxInt64, true
	}
	return time.Duration(math.Ceil(f)), true
}
