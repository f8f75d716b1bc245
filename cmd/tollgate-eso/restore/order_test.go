package restore_test

import (
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/restore"
)

// TestK27Order: what makes a Secret comes before what needs it, and priorities hold
// among all others. A target is written as NAME priority makes <needs,needs.
func TestK27Order(t *testing.T) {
	for _, c := range []struct {
		name    string
		targets []string
		want    string
	}{
		{"by name", []string{"b 0", "a 0"}, "0: a b"},
		{"by priority", []string{"a 0", "b 10", "c -1"}, "10: b | 0: a | -1: c"},
		{"a chain", []string{"a 0 x <y", "b 0 y <z", "c 0 z", "d 0"}, "0: c d | 0+1: b | 0+2: a"},
		{"its own Secret", []string{"a 0 x <x"}, "0: a"},
		{"a Secret that nobody makes", []string{"a 0 x <y"}, "0: a"},
		{"two makers", []string{"a 0 w <x,y", "b 0 x", "c 0 y", "d 0 x"}, "0: b c d | 0+1: a"},
		{"the more urgent one needs it", []string{"a 10 x <y", "b 0 y <z", "c -1 z", "d 5"}, "10: c | 10+1: b | 10+2: a | 5: d"},
		{"the less urgent one needs it", []string{"a 0 x <y", "b 10 y"}, "10: b | 0: a"},
		{"a circle", []string{"a 0 x <y", "b 0 y <x", "c 0 z <x"}, "0+1: b | 0+2: a | 0+3: c"},
		{"a circle of two priorities", []string{"a 1 x <y", "b 0 y <x"}, "1+1: b | 1+2: a"},
	} {
		var all []*restore.Target
		for _, text := range c.targets {
			all = append(all, parseTarget(t, text))
		}
		restore.Order(all)
		var waves []string
		for _, w := range restore.Waves(all) {
			wave := fmt.Sprintf("%d", w.Priority)
			if w.Depth > 0 {
				wave += fmt.Sprintf("+%d", w.Depth)
			}
			wave += ":"
			for _, one := range w.Targets {
				wave += " " + one.Key.Name
			}
			waves = append(waves, wave)
		}
		if got := strings.Join(waves, " | "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func parseTarget(t *testing.T, text string) *restore.Target {
	t.Helper()
	secret := func(name string) client.ObjectKey { return client.ObjectKey{Namespace: "n", Name: name} }
	fields := strings.Fields(text)
	target := &restore.Target{Key: secret(fields[0]), Members: []client.ObjectKey{secret(fields[0])}, Calls: 1}
	if _, err := fmt.Sscan(fields[1], &target.Priority); err != nil {
		t.Fatal(err)
	}
	for _, f := range fields[2:] {
		needs, ok := strings.CutPrefix(f, "<")
		if !ok {
			target.Makes = append(target.Makes, secret(f))
			continue
		}
		for _, n := range strings.Split(needs, ",") {
			target.Needs = append(target.Needs, secret(n))
		}
	}
	return target
}
