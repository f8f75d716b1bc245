package webhook_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/webhook"
)

const document = `{"a":{"b":["x","y",{"c":true}],"d e":7},"n":null}`

func decode(t testing.TB, text string) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestPathFinds(t *testing.T) {
	for _, c := range []struct {
		path string
		want []string
	}{
		{"$.a.b[0]", []string{"x"}},
		{"$.a.b[*]", []string{"x", "y"}},
		{"$.a.b[2].c", []string{"true"}},
		{"$.a['d e']", []string{"7"}},
		{`$["a"]["d e"]`, []string{"7"}},
		{"$.a.b[9]", nil},
		{"$.n", nil},
		{"$.a", nil},
		{"$.a.b.c", nil},
	} {
		p, err := webhook.ParsePath(c.path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, p.Find(decode(t, document))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.path, diff)
		}
	}
}

func TestPathsThatAreNone(t *testing.T) {
	for _, s := range []string{"", "$", "a", "$a", "$.", "$..a", "$[", "$[]", "$[-1]", "$[a]", "$['a", "$['']", "$.a[1", "$.a b]x["} {
		if p, err := webhook.ParsePath(s); err == nil {
			t.Errorf("ParsePath(%q) = %v, want an error", s, p)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"$.a.b[0]", "$['a']", "$[*]", "$.a[", "$..", "$[00000000000000000000001]"} {
		f.Add(s)
	}
	v := decode(f, document)
	f.Fuzz(func(t *testing.T, s string) {
		p, err := webhook.ParsePath(s)
		if err == nil && !strings.HasPrefix(s, "$") {
			t.Errorf("ParsePath(%q) is a path", s)
		}
		p.Find(v) // must not panic
	})
}

func FuzzAdapter(f *testing.F) {
	f.Add([]byte(`{"audit_event":"record_update","record_uid":"a","timestamp":1}`))
	f.Add([]byte(`{"audit_event":"record_update","record_uid":["a"],"timestamp":1e400}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := webhook.Presets()["keeper"].Read(body)
		if err == nil && e.Effect == webhook.Record && len(e.Records) == 0 {
			t.Errorf("Read(%q) = %+v: names no record", body, e)
		}
	})
}
