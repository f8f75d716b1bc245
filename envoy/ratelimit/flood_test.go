package ratelimit_test

import (
	"bytes"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/envoy/ratelimit"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

const flooded = `
domain: shop
descriptors:
- {key: user, rate_limit: {unit: hour, requests_per_unit: 2, name: users}}
- {key: path, value: "/v1/*", rate_limit: {unit: hour, requests_per_unit: 2, name: paths}}
- {key: smooth, rate_limit: {unit: hour, requests_per_unit: 2, algorithm: rate, burst: 2, name: smooth}}
- {key: calm, rate_limit: {unit: hour, requests_per_unit: 2}}
`

// TestFloodOfValues has callers name 500,000 values of a key that takes any, and
// of one with a wildcard, five times what the table holds. The memory bound holds,
// and nobody who was at the end of a limit gets more of it.
func TestFloodOfValues(t *testing.T) {
	size := 100_000 // the default
	if testing.Short() {
		size = 4_000
	}
	for _, key := range []string{"user=", "path=/v1/", "smooth="} {
		values := 5 * size
		if key == "smooth=" {
			values = 3 * size / 2
		}
		t.Run(key, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { flood(t, key, values, size) }) })
	}
}

func flood(t *testing.T, key string, values, size int) {
	s := start(t, flooded, ratelimit.Policy{Headers: extauthz.HeadersNone})
	s.options.Observer = nil
	table, rules := limits.NewTable(limits.TableOptions{Size: size}), s.options.Book.Rules()
	s.options.Book = descriptors.NewBook(table)
	s.options.Book.Swap(rules)
	s.Server = ratelimit.New(s.options, ratelimit.Policy{Headers: extauthz.HeadersNone})
	const victims = 50
	ask := func(value string) rlsv3.RateLimitResponse_Code {
		r, err := s.inBytes(t.Context(), encoded(t, "shop 1 "+key+value))
		if err != nil {
			t.Fatal(err)
		}
		return r.GetOverallCode()
	}
	for range 3 {
		for i := range victims {
			ask("victim" + strconv.Itoa(i))
		}
	}
	before := heap()
	data, room := encoded(t, "shop 1 "+key+"00000000"), make([]byte, 0, 4096)
	digits := data[bytes.Index(data, []byte("00000000")):][:8]
	for i := range values {
		for j, n := 7, i; j >= 0; j, n = j-1, n/10 {
			digits[j] = byte('0' + n%10)
		}
		if _, err := s.ShouldRateLimitBytes(t.Context(), data, room); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 {
			time.Sleep(time.Millisecond) // fake: the whole flood takes half a second
		}
	}
	if got := table.Len(); got > size {
		t.Errorf("%d limiters live, want at most %d", got, size)
	}
	const most = 256 // bytes of a limiter; what else grows is little
	if grown, want := heap()-before, int64(size*most+1<<20); grown > want {
		t.Errorf("the heap grew by %d bytes, want at most %d", grown, want)
	}
	for i := range victims {
		if got := ask("victim" + strconv.Itoa(i)); got != rlsv3.RateLimitResponse_OVER_LIMIT {
			t.Fatalf("victim %d: %v after the flood, want OVER_LIMIT as before", i, got)
		}
	}
	// Another rule's callers have nothing to do with it.
	if r, err := s.inBytes(t.Context(), encoded(t, "shop 2 calm=x")); err != nil || r.GetOverallCode() != rlsv3.RateLimitResponse_OK {
		t.Errorf("a caller of another rule: %v, %v, want OK", r, err)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
