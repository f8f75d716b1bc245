package limits_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

func TestParseRate(t *testing.T) {
	tests := []struct {
		in     string
		n      int64
		period time.Duration
		err    string // a part of it
	}{
		{in: "100/s", n: 100, period: time.Second},
		{in: "10/m", n: 10, period: time.Minute},
		{in: "10/h", n: 10, period: time.Hour},
		{in: "0/d", n: 0, period: 24 * time.Hour},
		{in: "1/2s", n: 1, period: 2 * time.Second},
		{in: "200/10s", n: 200, period: 10 * time.Second},
		{in: "5/1h30m", n: 5, period: 90 * time.Minute},
		{in: "9007199254740992/s", n: limits.MaxN, period: time.Second},
		{in: "9007199254740993/s", err: "want at most 2^53"},
		{in: "99999999999999999999999/s", err: "want at most 2^53"},
		{in: "1.5/s", err: "write 3/2s"},
		{in: "0.01/s", err: "write 1/1m40s"},
		{in: "2.0/m", err: "write 2/m"},
		{in: "1.5/0s", err: "want more than 0"},
		{in: "-1/s", err: "want a whole number"},
		{in: "+1/s", err: "want a whole number"},
		{in: "NaN/s", err: "want a whole number"},
		{in: "Inf/s", err: "want a whole number"},
		{in: "1e3/s", err: "want a whole number"},
		{in: "٣/s", err: "want a whole number"},
		{in: "/s", err: "no number"},
		{in: "", err: "want N/UNIT"},
		{in: "100", err: "want N/UNIT"},
		{in: "100/", err: "want s, m, h, d"},
		{in: "100/S", err: "want s, m, h, d"},
		{in: "100/fortnight", err: "want s, m, h, d"},
		{in: "100/-1s", err: "want more than 0"},
		{in: "100/0s", err: "want more than 0"},
		{in: "100/s/s", err: "want s, m, h, d"},
		{in: "100/9999999999h", err: "want s, m, h, d"},
		{in: " 100/s", err: "want a whole number"},
	}
	for _, tt := range tests {
		n, period, err := limits.ParseRate(tt.in)
		switch {
		case tt.err == "" && (err != nil || n != tt.n || period != tt.period):
			t.Errorf("ParseRate(%q) = %d, %v, %v, want %d, %v", tt.in, n, period, err, tt.n, tt.period)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("ParseRate(%q) = %d, %v, %v, want an error with %q", tt.in, n, period, err, tt.err)
		}
	}
}

func TestParseQuota(t *testing.T) {
	for in, want := range map[string]limits.Calendar{"10/minute": limits.Minute, "10/hour": limits.Hour, "10/day": limits.Day,
		"10/week": limits.Week, "10/month": limits.Month, "10/year": limits.Year} {
		if n, c, err := limits.ParseQuota(in); n != 10 || c != want || err != nil {
			t.Errorf("ParseQuota(%q) = %d, %q, %v", in, n, c, err)
		}
	}
	for _, in := range []string{"", "10", "10/", "/day", "10/s", "10/Day", "10/days", "-1/day", "1.5/day", "NaN/day"} {
		if n, c, err := limits.ParseQuota(in); err == nil {
			t.Errorf("ParseQuota(%q) = %d, %q, want an error", in, n, c)
		}
	}
}

func FuzzParseRate(f *testing.F) {
	for _, s := range []string{"100/s", "1/2s", "1.5/s", "5/1h30m", "0/d", "9007199254740993/s", "NaN/s", "-1/s", "1/1ns"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, period, err := limits.ParseRate(s)
		if err != nil {
			if _, suggestion, ok := strings.Cut(err.Error(), "; write "); ok {
				if _, _, err := limits.ParseRate(suggestion); err != nil {
					t.Errorf("ParseRate(%q) suggests %q: %v", s, suggestion, err)
				}
			}
			return
		}
		if n < 0 || n > limits.MaxN || period <= 0 {
			t.Errorf("ParseRate(%q) = %d, %v", s, n, period)
		}
		printed := limits.FormatRate(n, period)
		if n2, period2, err := limits.ParseRate(printed); n2 != n || period2 != period || err != nil {
			t.Errorf("ParseRate(%q), from %q, = %d, %v, %v, want %d, %v", printed, s, n2, period2, err, n, period)
		}
		// Whatever can be written can be compiled, or is refused with a reason.
		for _, k := range []limits.Kind{limits.Rate, limits.Pace, limits.FixedWindow, limits.IdleReset, limits.SmoothBursty} {
			sp, err := limits.Compile(limits.Limit{Kind: k, N: n, Period: period})
			if err != nil {
				continue
			}
			l := limits.New(sp, epoch)
			l.Take(epoch, 1)
			l.Take(epoch.Add(period), n)
		}
	})
}

func FuzzParseQuota(f *testing.F) {
	for _, s := range []string{"10/day", "0/month", "1.5/day", "-1/week"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, c, err := limits.ParseQuota(s)
		if err != nil {
			return
		}
		if _, err := limits.Compile(limits.Limit{Kind: limits.Quota, N: n, Calendar: c}); err != nil {
			t.Errorf("ParseQuota(%q) = %d, %q, which does not compile: %v", s, n, c, err)
		}
	})
}

func TestCompileNamesEveryProblem(t *testing.T) {
	const s = time.Second
	tests := []struct {
		limit limits.Limit
		want  []string
	}{
		{limits.Limit{Kind: "leaky", N: -1}, []string{`kind "leaky"`, "n -1", "period 0s"}},
		{limits.Limit{Kind: limits.Rate, N: limits.MaxN + 1, Period: -s, Burst: -1}, []string{"n 9007199254740993", "period -1s", "burst -1"}},
		{limits.Limit{Kind: limits.Rate, N: 1, Period: s, Burst: limits.MaxN}, []string{"takes longer"}},
		{limits.Limit{Kind: limits.Rate, N: 1, Period: math.MaxInt64}, []string{"period"}},
		{limits.Limit{Kind: limits.Window, N: 1, Period: s, Burst: 3}, []string{"burst: only a rate"}},
		{limits.Limit{Kind: limits.Quota, N: 1, Period: s}, []string{`calendar ""`, "a quota has a calendar period"}},
		{limits.Limit{Kind: limits.Window, N: 1, Period: s, Calendar: limits.Day}, []string{"only a quota"}},
		{limits.Limit{Kind: limits.Window, N: 1, Period: s, WarmUp: limits.WarmUp{Grace: s}}, []string{"only a rate"}},
		{limits.Limit{Kind: limits.Rate, N: 1, Period: s, WarmUp: limits.WarmUp{Grace: -s, Ramp: -s}}, []string{"grace", "ramp"}},
		{limits.Limit{Kind: limits.Rate, N: 1, Period: s, WarmUp: limits.WarmUp{GraceLimit: 1}}, []string{"grace_limit"}},
		{limits.Limit{Kind: limits.SmoothWarmingUp, N: 1, Period: s}, []string{"needs one"}},
		{limits.Limit{Kind: limits.SmoothBursty, N: 2, Period: time.Microsecond}, []string{"at most one per microsecond"}},
		{limits.Limit{Kind: limits.Rate, N: 1, Period: s, MaxWait: -s}, []string{"max_wait"}},
	}
	for _, tt := range tests {
		_, err := limits.Compile(tt.limit)
		if err == nil {
			t.Errorf("Compile(%+v) succeeds", tt.limit)
			continue
		}
		for _, w := range tt.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("Compile(%+v): %v\nwant %q in it", tt.limit, err, w)
			}
		}
	}
}

func TestDefaults(t *testing.T) {
	for _, tt := range []struct {
		limit limits.Limit
		burst int64
		name  string
	}{
		{limits.Limit{Kind: limits.Rate, N: 100, Period: time.Second}, 100, "rate-100-s"},
		{limits.Limit{Kind: limits.Rate, N: 100, Period: time.Minute}, 1, "rate-100-m"},
		{limits.Limit{Kind: limits.Rate, N: 3, Period: 2 * time.Second, Name: "mine"}, 1, "mine"},
		{limits.Limit{Kind: limits.Rate, N: limits.MaxN, Period: time.Second}, 1_000_000_000, "rate-9007199254740992-s"},
		{limits.Limit{Kind: limits.Window, N: 200, Period: 10 * time.Second}, 0, "window-200-10s"},
		{limits.Limit{Kind: limits.Quota, N: 10, Calendar: limits.Month}, 0, "quota-10-month"},
		{limits.Limit{Kind: limits.Pace, N: 10, Period: 90 * time.Minute}, 1, "pace-10-1h30m"},
	} {
		got := spec(t, tt.limit).Limit()
		if got.Burst != tt.burst || got.Name != tt.name {
			t.Errorf("Compile(%+v) has burst %d and name %q, want %d and %q", tt.limit, got.Burst, got.Name, tt.burst, tt.name)
		}
		if _, err := limits.Compile(got); err != nil {
			t.Errorf("what Limit returns does not compile: %v", err)
		}
	}
}
