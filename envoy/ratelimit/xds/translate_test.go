package xds_test

import (
	"testing"

	rlsconfigv3 "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/envoy/ratelimit/xds"
)

func anyOf(m proto.Message) (*anypb.Any, error) { return anypb.New(m) }

func anys(list ...*anypb.Any) []*anypb.Any { return list }

// torn is a resource whose bytes end in the middle.
func torn() *anypb.Any { return &anypb.Any{TypeUrl: xds.TypeURL, Value: []byte{0x0a, 0x7f, 'x'}} }

// TestRulesAreThoseOfAFile gives the same rules as a resource and as a file.
func TestRulesAreThoseOfAFile(t *testing.T) {
	metadata, err := structpb.NewStruct(map[string]any{"owner": map[string]any{"team": "a"}})
	if err != nil {
		t.Fatal(err)
	}
	resource := &rlsconfigv3.RateLimitConfig{Name: "r", Domain: "d", Descriptors: []*rlsconfigv3.RateLimitDescriptor{
		{Key: "k", Value: "v*", Metadata: metadata, Descriptors: []*rlsconfigv3.RateLimitDescriptor{
			{Key: "second", ShadowMode: true, RateLimit: &rlsconfigv3.RateLimitPolicy{Unit: rlsconfigv3.RateLimitUnit_SECOND, RequestsPerUnit: 1}},
			{Key: "minute", QuotaMode: true, RateLimit: &rlsconfigv3.RateLimitPolicy{Unit: rlsconfigv3.RateLimitUnit_MINUTE, RequestsPerUnit: 2}},
			{Key: "hour", RateLimit: &rlsconfigv3.RateLimitPolicy{Unit: rlsconfigv3.RateLimitUnit_HOUR}},
			{Key: "day", RateLimit: &rlsconfigv3.RateLimitPolicy{Unit: rlsconfigv3.RateLimitUnit_DAY, RequestsPerUnit: 4}},
			{Key: "week", RateLimit: &rlsconfigv3.RateLimitPolicy{Unit: rlsconfigv3.RateLimitUnit_WEEK, RequestsPerUnit: 5}},
			{Key: "month", RateLimit: &rlsconfigv3.RateLimitPolicy{Unit: rlsconfigv3.RateLimitUnit_MONTH, RequestsPerUnit: 6}},
			{Key: "year", DetailedMetric: true, RateLimit: &rlsconfigv3.RateLimitPolicy{Unit: rlsconfigv3.RateLimitUnit_YEAR, RequestsPerUnit: 7}},
		}},
		{Key: "free", RateLimit: &rlsconfigv3.RateLimitPolicy{Unlimited: true}},
		{Key: "named", Metadata: metadata, RateLimit: &rlsconfigv3.RateLimitPolicy{
			Name: "n", Unit: rlsconfigv3.RateLimitUnit_DAY, RequestsPerUnit: 8, Replaces: []*rlsconfigv3.RateLimitReplace{{Name: "m"}},
		}},
	}}
	file := `
domain: d
descriptors:
  - key: k
    value: v*
    descriptors:
      - {key: second, shadow_mode: true, rate_limit: {unit: second, requests_per_unit: 1}}
      - {key: minute, quota_mode: true, rate_limit: {unit: minute, requests_per_unit: 2}}
      - {key: hour, rate_limit: {unit: hour, requests_per_unit: 0}}
      - {key: day, rate_limit: {unit: day, requests_per_unit: 4}}
      - {key: week, rate_limit: {unit: week, requests_per_unit: 5}}
      - {key: month, rate_limit: {unit: month, requests_per_unit: 6}}
      - {key: year, detailed_metric: true, rate_limit: {unit: year, requests_per_unit: 7}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: named, rate_limit: {name: n, unit: day, requests_per_unit: 8, replaces: [{name: m}]}}
`
	got, err := xds.Rules([]*rlsconfigv3.RateLimitConfig{resource}, descriptors.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want, err := descriptors.Parse([]descriptors.File{{Name: "f", Data: []byte(file)}}, descriptors.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), got.String()); diff != "" {
		t.Error(diff)
	}
	named := got.Domain("d").Match([]descriptors.Entry{{Key: "named", Value: "x"}})
	if named == nil || named.Name != "n" || !cmp.Equal(named.Replaces, []string{"m"}) ||
		!cmp.Equal(named.Metadata, map[string]any{"owner": map[string]any{"team": "a"}}) {
		t.Errorf("Match(named) = %+v", named)
	}
	year := []descriptors.Entry{{Key: "k", Value: "v1"}, {Key: "year", Value: "y"}}
	if label := descriptors.NewBook(nil).Label(got.Domain("d").Match(year), year); label != "k_v1.year_y" {
		t.Errorf("Label(year) = %s, want k_v1.year_y", label)
	}
}

// FuzzRules takes any resource: there is no panic, and what is refused says why.
func FuzzRules(f *testing.F) {
	seed, err := proto.Marshal(limit("d", "k"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add(torn().GetValue())
	f.Fuzz(func(t *testing.T, data []byte) {
		var r rlsconfigv3.RateLimitConfig
		if proto.Unmarshal(data, &r) != nil {
			return
		}
		rules, err := xds.Rules([]*rlsconfigv3.RateLimitConfig{&r, nil}, descriptors.Options{})
		if (rules == nil) == (err == nil) || err != nil && err.Error() == "" {
			t.Errorf("Rules = %v, %v", rules, err)
		}
	})
}
