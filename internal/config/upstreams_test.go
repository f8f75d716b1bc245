package config_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/config"
	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/pressure"
)

func sameZone(a, b *time.Location) bool { return a.String() == b.String() }

// ownUpstream is the second one of everything.
func ownUpstream(t *testing.T) *upstreams.Config {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return &upstreams.Config{
		ID: "own", Hosts: []string{"api.example.com", "*.b.example"},
		Limits: []upstreams.Limit{
			{Limit: limits.Limit{Kind: limits.Window, N: 200, Period: 10 * time.Second, MaxWait: 30 * time.Second}, Margin: 0.1},
			{Limit: limits.Limit{Kind: limits.Quota, N: 50000, Calendar: limits.Month, Location: berlin}},
		},
		Signals:  []upstreams.Signal{{Status: 429}, {Status: 403, Body: "throttled"}, {Status: 503, Header: "retry-after"}},
		Pressure: pressure.Policy{Initial: 10 * time.Second, Factor: 1.5, Max: 15 * time.Minute, Cap: time.Hour, Ramp: 2 * time.Second, Probe: 3 * time.Second},
		Answer:   upstreams.Answering{Style: "apollo", Status: 403},
		Caller:   upstreams.Source{From: "header", Name: "x-store"},
		Queue:    7,
		Budget: &upstreams.Budget{
			Periods:  []upstreams.Period{{Calls: 1000, Calendar: limits.Day}, {Calls: 20000, Calendar: limits.Month}},
			Location: berlin, Alerts: []float64{0.5, 0.9}, Soft: true,
			Class: upstreams.Source{From: "header", Name: "x-class"}, Classes: []upstreams.Class{{Name: "webhook", Reserve: 0.1}, {Name: "periodic"}},
			Attribute: upstreams.Source{From: "context", Name: "store"}, Price: 0.002,
		},
	}
}

// Every preset is read without a problem, and what a configuration says wins.
func TestPresets(t *testing.T) {
	names := config.Presets()
	if len(names) < 3 {
		t.Fatalf("presets = %v, want at least three", names)
	}
	for _, name := range names {
		dir := t.TempDir()
		write(t, dir+"/tollgate.yaml", fmt.Sprintf("upstreams: [{preset: %s}, {id: own, preset: %s, match: {host: h.example}, limits: [{rate: 7/s}], pressure: {max: 20m}}]\n", name, name))
		loaded, _, err := config.Load(dir+"/tollgate.yaml", nil)
		if err != nil {
			t.Fatalf("preset %s: %v", name, err)
		}
		u, own := loaded.Config.Upstreams[0], loaded.Config.Upstreams[1]
		if u.ID != name || len(u.Limits) == 0 || len(u.Signals) < 2 || u.Longest() == 0 || u.Pressure.Initial == 0 || u.Check() != nil {
			t.Errorf("preset %s = %+v, want an id, limits that hold, signals and pauses", name, u)
		}
		want := *u
		want.ID, want.Hosts, want.Limits, want.Pressure.Max = "own", []string{"h.example"}, []upstreams.Limit{{Limit: limits.Limit{Kind: limits.Rate, N: 7, Period: time.Second}}}, 20*time.Minute
		if diff := cmp.Diff(&want, own); diff != "" {
			t.Errorf("preset %s with other values (-want +got):\n%s", name, diff)
		}
		if loaded.MaxWait() != u.Longest() {
			t.Errorf("preset %s: MaxWait = %v, want %v", name, loaded.MaxWait(), u.Longest())
		}
	}
}
