package ratelimit_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tollgate-dev/tollgate/envoy/ratelimit"
	"github.com/tollgate-dev/tollgate/extauthz"
)

const counted = `
domain: "a:b"
descriptors:
- key: k
  rate_limit: {unit: hour, requests_per_unit: 10}
- key: remote_address
  value: 10.1.2.3
  descriptors:
  - key: host
    value: example.com
    descriptors:
    - key: path
      rate_limit: {unit: hour, requests_per_unit: 1}
- key: detailed
  detailed_metric: true
  rate_limit: {unit: hour, requests_per_unit: 1}
- key: watched
  shadow_mode: true
  rate_limit: {unit: hour, requests_per_unit: 1}
- key: free
  rate_limit: {unlimited: true}
- key: qa
  quota_mode: true
  rate_limit: {unit: hour, requests_per_unit: 1}
- key: qb
  quota_mode: true
  rate_limit: {unit: hour, requests_per_unit: 9}
`

// stats returns a service that counts, and what it has counted so far: every
// counter that is not 0, one a line.
func stats(t *testing.T, p ratelimit.Policy) (s *service, shown func() string) {
	s = start(t, counted, p)
	s.options.Stats = ratelimit.NewStats(0.8)
	s.Server = ratelimit.New(s.options, p)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(s.options.Stats)
	return s, func() string {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if m.GetCounter().GetValue() == 0 {
					continue
				}
				b.WriteString(strings.TrimPrefix(f.GetName(), "ratelimit_service_"))
				for _, l := range m.GetLabel() {
					fmt.Fprintf(&b, " %s=%s", l.GetName(), l.GetValue())
				}
				fmt.Fprintf(&b, " %v\n", m.GetCounter().GetValue())
			}
		}
		return b.String()
	}
}

func TestStatsHaveTheNamesAndNumbersOfThere(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy ratelimit.Policy
		asks   []string
		want   []string
	}{
		{"below, near and over", ratelimit.Policy{}, []string{"a:b 7 k=v", "a:b 2 k=v", "a:b 1 k=v", "a:b 3 k=v"}, []string{
			"rate_limit_near_limit domain=a_b key1=k 2", // the 9th and the 10th
			"rate_limit_over_limit domain=a_b key1=k 3",
			"rate_limit_total_hits domain=a_b key1=k 13",
			"rate_limit_within_limit domain=a_b key1=k 10",
		}},
		{"a label for each level, whatever dots are in it", ratelimit.Policy{}, []string{"a:b 1 remote_address=10.1.2.3,host=example.com,path=/"}, []string{
			"rate_limit_near_limit domain=a_b key1=remote_address_10_1_2_3 key2=host_example.com key3=path 1",
			"rate_limit_total_hits domain=a_b key1=remote_address_10_1_2_3 key2=host_example.com key3=path 1",
			"rate_limit_within_limit domain=a_b key1=remote_address_10_1_2_3 key2=host_example.com key3=path 1",
		}},
		{"values, and two that look the same", ratelimit.Policy{}, []string{"a:b 1 detailed=x:y", "a:b 1 detailed=x_y"}, []string{
			"rate_limit_near_limit domain=a_b key1=detailed_x_y 2",
			"rate_limit_total_hits domain=a_b key1=detailed_x_y 2",
			"rate_limit_within_limit domain=a_b key1=detailed_x_y 2",
		}},
		{"shadow_mode", ratelimit.Policy{}, []string{"a:b 2 watched=x"}, []string{
			"rate_limit_over_limit domain=a_b key1=watched 2",
			"rate_limit_shadow_mode domain=a_b key1=watched 2",
			"rate_limit_total_hits domain=a_b key1=watched 2",
		}},
		{"the global shadow", ratelimit.Policy{Mode: extauthz.Shadow}, []string{"a:b 11 k=v"}, []string{
			"global_shadow_mode 1",
			"rate_limit_over_limit domain=a_b key1=k 11",
			"rate_limit_total_hits domain=a_b key1=k 11",
		}},
		{"unlimited", ratelimit.Policy{}, []string{"a:b 5 free=x"}, []string{
			"rate_limit_total_hits domain=a_b key1=free 5",
			"rate_limit_within_limit domain=a_b key1=free 5",
		}},
		{"a quota that is used up beside one that is not", ratelimit.Policy{}, []string{"a:b 2 qa=x qb=x"}, []string{
			"rate_limit_over_limit domain=a_b key1=qa 2",
			"rate_limit_total_hits domain=a_b key1=qa 2",
			"rate_limit_total_hits domain=a_b key1=qb 2",
			"rate_limit_within_limit domain=a_b key1=qb 2",
		}},
		{"refused by another limit", ratelimit.Policy{}, []string{"a:b 9 k=v remote_address=10.1.2.3,host=example.com,path=/"}, []string{
			"rate_limit_over_limit domain=a_b key1=remote_address_10_1_2_3 key2=host_example.com key3=path 9",
			"rate_limit_total_hits domain=a_b key1=k 9",
			"rate_limit_total_hits domain=a_b key1=remote_address_10_1_2_3 key2=host_example.com key3=path 9",
			"rate_limit_within_limit domain=a_b key1=k 9",
		}},
		{"what cannot be meant", ratelimit.Policy{}, []string{"a:b 1 =x"}, []string{"should_rate_limit_error err_type=service_error 1"}},
		{"a look and what is unknown", ratelimit.Policy{}, []string{"a:b 1 k=v|hits=0", "nowhere 1 k=v", "a:b 1 z=v"}, []string{"rate_limit_domain_not_found 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, shown := stats(t, c.policy)
				for _, ask := range c.asks {
					s.ask(t, ask)
				}
				got := strings.Split(strings.TrimSuffix(shown(), "\n"), "\n")
				want := append(c.want, fmt.Sprintf("total_requests grpc_method=ShouldRateLimit %d", len(c.asks)))
				slices.Sort(got)
				slices.Sort(want)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("counters (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestStatsCountLoads(t *testing.T) {
	s, shown := stats(t, ratelimit.Policy{})
	s.options.Stats.Loaded(nil)
	s.options.Stats.Loaded(nil)
	s.options.Stats.Loaded(fmt.Errorf("bad"))
	if got, want := shown(), "config_load_error 1\nconfig_load_success 2\n"; got != want {
		t.Errorf("counters = %q, want %q", got, want)
	}
}

// TestStatsAreBounded has more rules than are told apart.
func TestStatsAreBounded(t *testing.T) {
	var rules strings.Builder
	rules.WriteString("domain: d\ndescriptors:\n")
	const many = 10_050
	for i := range many {
		fmt.Fprintf(&rules, "- {key: k%d, rate_limit: {unit: hour, requests_per_unit: 5}}\n", i)
	}
	s := start(t, rules.String(), ratelimit.Policy{})
	s.options.Stats = ratelimit.NewStats(0.8)
	s.Server = ratelimit.New(s.options, ratelimit.Policy{})
	for i := range many {
		s.ask(t, fmt.Sprintf("d 1 k%d=v", i))
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(s.options.Stats)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "ratelimit_service_rate_limit_total_hits" {
			continue
		}
		if len(f.GetMetric()) != 10_000 {
			t.Errorf("%d limits are told apart, want 10000", len(f.GetMetric()))
		}
		sum := 0.0
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue()
		}
		if sum != many {
			t.Errorf("%v hits counted, want %d", sum, many)
		}
	}
}

func TestStatsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates too")
	}
	s, _ := stats(t, ratelimit.Policy{Headers: extauthz.HeadersNone, Mode: extauthz.Shadow})
	s.options.Observer = nil
	s.Server = ratelimit.New(s.options, ratelimit.Policy{Headers: extauthz.HeadersNone, Mode: extauthz.Shadow})
	data, room := encoded(t, "a:b 1 k=v detailed=x watched=x"), make([]byte, 0, 4096)
	got := testing.AllocsPerRun(200, func() {
		if _, err := s.ShouldRateLimitBytes(t.Context(), data, room); err != nil {
			t.Fatal(err)
		}
	})
	if got > 0 {
		t.Errorf("%v allocations, want none", got)
	}
}
