package embedded_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/embedded"
)

// What is read quickly is read as package json reads it.
func FuzzDecode(f *testing.F) {
	limit, err := consumers.ParseLimit("20/s")
	if err != nil {
		f.Fatal(err)
	}
	made := time.Date(2026, 5, 4, 3, 2, 1, 1000, time.UTC)
	token := consumers.Token{ID: "prod", Hash: consumers.HashOf("s"), Created: made}
	for _, c := range []struct {
		consumer consumers.Consumer
		quick    bool
	}{
		{consumers.Consumer{}, true},
		{consumers.Consumer{Version: 7, Plan: "free", Disabled: true, Tokens: []consumers.Token{token, {ID: "b", Hash: consumers.HashOf("t")}}}, true},
		{consumers.Consumer{Version: 1 << 63, Limits: consumers.Limits{*limit}, Tokens: []consumers.Token{token}}, true},
		{consumers.Consumer{Limits: consumers.Limits{}}, true},
		{consumers.Consumer{Labels: map[string]string{"team": "ü"}}, false},
		{consumers.Consumer{Plan: "a<b"}, false},
		{consumers.Consumer{Tokens: []consumers.Token{{ID: "x", Hash: consumers.HashOf("u"), Expires: made}}}, false},
	} {
		value, err := embedded.Encode(c.consumer)
		if err != nil {
			f.Fatal(err)
		}
		if _, quick, _, _ := embedded.Decode(value); quick != c.quick {
			f.Errorf("%s is read quickly: %v, want %v", value, quick, c.quick)
		}
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		first, quick, any, err := embedded.Decode(value)
		if !quick {
			return
		}
		if err != nil {
			t.Fatalf("%q is no consumer: %v", value, err)
		}
		if diff := cmp.Diff(any, first); diff != "" {
			t.Errorf("%q (-json +read quickly):\n%s", value, diff)
		}
	})
}
