package upstreams_test

import (
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams/upstreamstest"
	"github.com/tollgate-dev/tollgate/limits"
)

// BenchmarkAdmit is a request that need not wait, and the answer to it.
func BenchmarkAdmit(b *testing.B) {
	bench := upstreamstest.NewBench(b, config(limit(limits.Rate, limits.MaxN, time.Second, time.Minute)), nil, upstreams.Options{})
	defer bench.End()
	ctx, r, taken := b.Context(), upstreams.Request{Cost: 1, Caller: "a"}, upstreams.Answer{Status: 200}
	b.ReportAllocs()
	for b.Loop() {
		if v, err := bench.Upstream.Admit(ctx, r); err != nil || v.Reason != "" {
			b.Fatal(v, err)
		}
		bench.Upstream.Observe(bench.Clock.Now(), taken)
	}
}
