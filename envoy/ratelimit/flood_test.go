package ratelimit_test

import (
	"bytes"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/tollgate-dev/tollgate/envoy/ratelimit"
	"github.com/tollgate-dev/tollgate/extauthz"
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
	for key, values := range map[string]int{"user=": 500_000, "path=/v1/": 500_000, "smooth=": 150_000} {
		if testing.Short() && key != "user=" {
			continue
		}
		if testing.Short() {
			values = 110_000 // what the table holds, and a tenth as many again
		}
		t.Run(key, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { flood(t, key, values) }) })
	}
}

func flood(t *testing.T, key string, values int) {
	s := start(t, flooded, ratelimit.Policy{Headers: extauthz.HeadersNone})
	s.options.Observer = nil
	s.Server = ratelimit.New(s.options, ratelimit.Policy{Headers: extauthz.HeadersNone})
	const victims = 100
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
	const size, most = 100_000, 256 // limiters, and bytes of each
	if got := s.table.Len(); got > size {
		t.Errorf("%d limiters live, want at most %d", got, size)
	}
	if grown := heap() - before; grown > size*most {
		t.Errorf("the heap grew by %d bytes, want at most %d", grown, size*most)
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
