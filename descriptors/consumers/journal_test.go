package consumers_test

import (
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/limits"
)

// TestUnsavedCostsTheChange looks once a second, as the store does: what is
// quiet is not reported again, and what changes is, whenever it comes back.
func TestUnsavedCostsTheChange(t *testing.T) {
	quota := consumers.Consumer{ID: "quota", Limits: list(t, `[{"quota":"1000/year"}]`), Tokens: []consumers.Token{token("t", "q")}}
	rate := consumers.Consumer{ID: "rate", Limits: list(t, `"5/s"`), Tokens: []consumers.Token{token("t", "r")}}
	plain := consumers.Consumer{ID: "plain", Limits: list(t, `[{"window":"5/s"}]`), Tokens: []consumers.Token{token("t", "p")}}
	r := known(t, consumers.RegistryOptions{WarmUp: limits.WarmUp{Grace: time.Second}, Idle: time.Hour}, quota, rate, plain)
	at := func(second int) limits.Time { return start.Add(time.Duration(second) * time.Second) }
	reported := func(from, to int, use func(second int)) (n int) {
		for s := from; s < to; s++ {
			use(s)
			n += len(r.Unsaved(at(s)))
		}
		return n
	}
	use := func(secret string) func(int) {
		return func(second int) { take(t, r, at(second), secret, 1) }
	}
	nobody := func(int) {}
	if n := reported(0, 60, nobody); n != 0 {
		t.Errorf("without a request %d states were reported", n)
	}
	if n := reported(60, 90, use("q")); n != 30 {
		t.Errorf("of a quota used in 30 seconds %d states were reported, want 30", n)
	}
	if n := reported(90, 120, nobody); n != 0 {
		t.Errorf("of a quota that is quiet %d states were reported", n)
	}
	if n := reported(120, 121, use("q")); n != 1 {
		t.Errorf("of a quota that came back %d states were reported, want 1", n)
	}
	if n := reported(200, 230, use("p")); n != 0 {
		t.Errorf("of a window %d states were reported", n)
	}
	if n := reported(300, 301, use("r")); n != 1 {
		t.Errorf("of a grace that began %d states were reported, want 1", n)
	}
	// Used every second for half an idle period: now and then, when it was last used.
	if n := reported(301, 2100, use("r")); n < 3 || n > 10 {
		t.Errorf("of a rate used for 30 minutes %d states were reported, want one in some minutes", n)
	}
}
