package file_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/file"
	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
	"github.com/tollgate-dev/tollgate/limits"
)

var update = flag.Bool("update", false, "rewrite the expected complaints")

func TestLoad(t *testing.T) {
	set, warnings, err := file.Load("testdata/good.yaml", yamlfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	type L = limits.Limit
	want := consumers.Set{
		Plans: map[string]consumers.Plan{
			"free": {Limits: consumers.Limits{
				{Limit: L{Kind: limits.Rate, N: 5, Period: time.Second, Burst: 10}},
				{Limit: L{Kind: limits.Quota, N: 10000, Calendar: limits.Day}},
			}},
			"open": {Limits: consumers.Limits{}},
		},
		Consumers: []consumers.Consumer{
			{
				ID: "billing", Plan: "free", Labels: map[string]string{"team": "payments"},
				Limits: consumers.Limits{{Limit: L{Kind: limits.Rate, N: 100, Period: time.Second}}},
				Tokens: []consumers.Token{
					{ID: "prod", Hash: consumers.HashOf("test"), Expires: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)},
					{ID: "laptop", Hash: consumers.HashOf("dev-secret")},
				},
			},
			{
				ID: "everything@example.com", Disabled: true,
				Limits: consumers.Limits{
					{Limit: L{Kind: limits.Window, N: 200, Period: 10 * time.Second, MaxWait: 30 * time.Second, Name: "steady"}, PerConsumer: true},
					{Limit: L{Kind: limits.Quota, N: 5, Calendar: limits.Month, Location: berlin, Shadow: true, OnError: limits.OnErrorDeny}},
					{Limit: L{Kind: limits.Rate, N: 1, Period: 2 * time.Second}, OwnWarmUp: true},
					{Limit: L{Kind: limits.Rate, N: 7, Period: time.Minute, WarmUp: limits.WarmUp{Grace: 2 * time.Second, Ramp: 3 * time.Second, GraceLimit: 9}}, OwnWarmUp: true},
					{Limit: L{Kind: limits.Pace, N: 3, Period: time.Second}},
					{Limit: L{Kind: limits.IdleReset, N: 4, Period: 10 * time.Second}},
					{Limit: L{Kind: limits.FixedWindow, N: 4, Period: time.Minute}},
					{Limit: L{Kind: limits.SmoothBursty, N: 5, Period: time.Second}},
					{Limit: L{Kind: limits.SmoothWarmingUp, N: 10, Period: time.Second, WarmUp: limits.WarmUp{Ramp: 4 * time.Second}}, OwnWarmUp: true},
				},
			},
			{ID: "unlimited", Limits: consumers.Limits{}},
		},
	}
	sameZone := cmp.Comparer(func(a, b *time.Location) bool { return a.String() == b.String() })
	if diff := cmp.Diff(want, set, sameZone); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}
	if len(warnings) != 1 || !strings.HasPrefix(warnings[0].Error(), `testdata/good.yaml:11:29: token "laptop" of consumer "billing" stands here in clear`) {
		t.Errorf("warnings = %v", warnings)
	}
	if err := consumers.NewRegistry(consumers.RegistryOptions{}).Replace(0, set); err != nil {
		t.Errorf("a registry does not take it: %v", err)
	}
	for _, c := range set.Consumers {
		b, err := c.Limits.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var back consumers.Limits
		if err := back.UnmarshalJSON(b); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.Limits, back, sameZone); diff != "" {
			t.Errorf("limits of %s through JSON %s (-want +got):\n%s", c.ID, b, diff)
		}
	}
}

// TestParseComplains compares all complaints about each bad file with those
// beside it.
func TestParseComplains(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, _, got := file.Parse(filepath.Base(path), data, yamlfile.Options{})
		if got == nil {
			t.Errorf("%s: no complaint", path)
			continue
		}
		expected := strings.TrimSuffix(path, ".yaml") + ".err"
		if *update {
			if err := os.WriteFile(expected, []byte(got.Error()+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(expected)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.Error()+"\n"); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

func TestEmptyListIsMeant(t *testing.T) {
	set, _, err := file.Parse("c.yaml", []byte("consumers: []\n"), yamlfile.Options{})
	if err != nil || len(set.Consumers) != 0 {
		t.Errorf("Parse = %v, %v", set, err)
	}
}

// FuzzParse checks that whatever is accepted is also taken by a registry, and
// that its limits survive being written as JSON.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/*.yaml", "testdata/bad/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range files {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		set, _, err := file.Parse("f.yaml", data, yamlfile.Options{})
		if err != nil {
			return
		}
		r := consumers.NewRegistry(consumers.RegistryOptions{WarmUp: limits.WarmUp{Grace: time.Second, Ramp: time.Second}})
		if err := r.Replace(0, set); err != nil {
			t.Fatalf("accepted, but a registry says: %v", err)
		}
		for _, c := range set.Consumers {
			b, err := c.Limits.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			var back consumers.Limits
			if err := back.UnmarshalJSON(b); err != nil {
				t.Fatalf("limits %s do not read back: %v", b, err)
			}
			if again, _ := back.MarshalJSON(); string(again) != string(b) {
				t.Fatalf("limits %s read back as %s", b, again)
			}
			r.Consumer(0, c.ID)
			for _, l := range c.Limits {
				_ = l.String()
			}
		}
	})
}
