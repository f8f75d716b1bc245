package sqlstore

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestSeen: numbers that were passed over are asked for until they are seen.
func TestSeen(t *testing.T) {
	now := time.Unix(1, 0)
	j := &journal{started: true, last: 10}
	for _, step := range []struct {
		seqs []int64
		last int64
		gaps []gap
	}{
		{[]int64{11}, 11, nil},
		{[]int64{13, 17}, 17, []gap{{12, 12, now}, {14, 16, now}}},
		{[]int64{15}, 17, []gap{{12, 12, now}, {14, 14, now}, {16, 16, now}}},
		{[]int64{12, 15, 16}, 17, []gap{{14, 14, now}}},
		{[]int64{14, 18}, 18, []gap{}},
	} {
		j.seen(step.seqs, now)
		if j.last != step.last || len(j.gaps) != len(step.gaps) {
			t.Fatalf("after %v: last %d, gaps %v, want %d and %v", step.seqs, j.last, j.gaps, step.last, step.gaps)
		}
		if diff := cmp.Diff(step.gaps, j.gaps, cmp.AllowUnexported(gap{})); len(step.gaps) > 0 && diff != "" {
			t.Errorf("after %v (-want +got):\n%s", step.seqs, diff)
		}
	}
}

// TestRetryAfter: waits grow, stay bounded, and are spread.
func TestRetryAfter(t *testing.T) {
	for failures := 1; failures < 100; failures++ {
		longest, shortest := retryAfter(failures, 0), retryAfter(failures, 1)
		if longest > lastRetry || longest < firstRetry || shortest != longest/2 {
			t.Errorf("after %d failures: %s to %s", failures, shortest, longest)
		}
	}
	if retryAfter(50, 0) != lastRetry {
		t.Errorf("after many failures %s, want %s", retryAfter(50, 0), lastRetry)
	}
}

// FuzzParseLimits: what is accepted means the same when written and read again.
func FuzzParseLimits(f *testing.F) {
	for _, s := range []string{"5/s", "none", " 5/s ", `"5/s"`, `[{"rate":"5/s","burst":9}]`, "[]", "[", "-5/s", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ls, err := parseLimits(text)
		if err != nil {
			return
		}
		b, err := ls.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseLimits(string(b))
		if err != nil {
			t.Fatalf("%q is written as %s, which is not read: %v", text, b, err)
		}
		if c, _ := again.MarshalJSON(); string(c) != string(b) {
			t.Fatalf("%s is read as %s", b, c)
		}
	})
}
