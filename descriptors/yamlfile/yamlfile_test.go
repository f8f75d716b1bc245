package yamlfile_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
)

// settings is what the tests read: every reader once.
type settings struct {
	Name  string
	Count int64
	On    bool
	For   time.Duration
	At    time.Time
	Mode  string
	Tags  []string
	Items []settings
	Data  any
}

func read(n yamlfile.Node) settings {
	var s settings
	m := n.Map()
	if v, ok := m.Get("name"); ok {
		s.Name = v.String()
	}
	if v, ok := m.Get("count"); ok {
		s.Count = v.Int(0, 100)
	}
	if v, ok := m.Get("on"); ok {
		s.On = v.Bool()
	}
	if v, ok := m.Get("for"); ok {
		s.For = v.Duration()
	}
	if v, ok := m.Get("at"); ok {
		s.At = v.Time()
	}
	if v, ok := m.Get("mode"); ok {
		s.Mode = v.OneOf("enforce", "shadow")
	}
	if v, ok := m.Get("tags"); ok {
		s.Tags = v.Strings()
	}
	if v, ok := m.Get("items"); ok {
		for _, e := range v.List() {
			s.Items = append(s.Items, read(e))
		}
	}
	if v, ok := m.Get("data"); ok {
		s.Data = v.Any()
	}
	m.Done()
	return s
}

func lookup(name string) (string, bool) {
	v, ok := map[string]string{"HOST": "example.org", "EMPTY": "", "SECRET": "hunter2"}[name]
	return v, ok
}

func TestReadsEveryType(t *testing.T) {
	doc := yamlfile.Parse("f.yaml", []byte(`
name: 42
count: 1_0
on: Yes
for: 1h30m
at: 2027-01-01T00:00:00Z
mode: shadow
tags: [a, 1, true]
items:
  - name: ${HOST}:${PORT:-80}/$${x}
  - {name: ~, count: 0, on: no, for: 0}
data: {i: 0x10, f: 1.5, b: true, n: null, s: "1", d: 2027-01-01, 7: [], big: 99999999999999999999}
`), yamlfile.Options{Lookup: lookup})
	got := read(doc.Root())
	if err := doc.Err(); err != nil {
		t.Fatal(err)
	}
	want := settings{
		Name: "42", Count: 10, On: true, For: 90 * time.Minute, At: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		Mode: "shadow", Tags: []string{"a", "1", "true"},
		Items: []settings{{Name: "example.org:80/${x}"}, {}},
		Data: map[string]any{
			"i": int64(16), "f": 1.5, "b": true, "n": nil, "s": "1", "d": "2027-01-01", "7": []any{}, "big": 1e20,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestProblems(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"none", "name: x\n", nil},
		{"byte order mark and Windows line ends", "\ufeffname: x\r\ncount: 3\r\n", nil},
		{"end marker", "name: x\n...\n", nil},
		{"all at once, in the order of the file", "count: 101\nmode: of\non: maybe\nfor: -1s\nat: noon\ntags: x\nitems: [a, [b], {name: [c]}]\n", []string{
			`1:8: "101": want a whole number from 0 to 100`,
			`2:7: "of": want one of enforce, shadow`,
			`3:5: "maybe": want true or false`,
			`4:6: "-1s": want a duration such as 1s, 250ms or 1h30m`,
			`5:5: "noon": want a time such as 2027-01-01T00:00:00Z`,
			`6:7: want a list, got text`,
			`7:9: want a mapping, got text`,
			`7:12: want a mapping, got a list`,
			`7:24: want a value, got a list`,
		}},
		{"columns count characters", "{name: é, ünknown: x}\n", []string{
			`1:11: unknown key "ünknown": want one of at, count, data, for, items, mode, name, on, tags`,
		}},
		{"unknown keys", "nmae: x\ncolour: red\n", []string{
			`1:1: unknown key "nmae": did you mean "name"?`,
			`2:1: unknown key "colour": want one of at, count, data, for, items, mode, name, on, tags`,
		}},
		{"null key is known", "name:\ncolour:\n", []string{
			`2:1: unknown key "colour": want one of at, count, data, for, items, mode, name, on, tags`,
		}},
		{"duplicate keys", "name: x\ncount: 1\n\"name\": y\nname: z\n", []string{
			`3:1: name: already given on line 1`,
			`4:1: name: already given on line 1`,
		}},
		{"duplicate keys in data", "data:\n  a: {b: 1, b: 2}\n", []string{`2:13: b: already given on line 2`}},
		{"keys that are none", "[a]: x\nnull: y\n", []string{
			`1:1: want a key, got a list`,
			`2:1: want a key, got nothing`,
		}},
		{"second document", "name: x\n---\nname: y\n", []string{`2:1: a second document starts here: want one document in a file`}},
		{"second document, empty", "name: x\n---\n", []string{`2:1: a second document starts here: want one document in a file`}},
		{"second document and a problem before it", "count: x\n---\n", []string{
			`1:8: "x": want a whole number from 0 to 100`,
			`2:1: a second document starts here: want one document in a file`,
		}},
		{"not a mapping", "- name: x\n", []string{`1:1: want a mapping, got a list`}},
		{"empty", "# nothing\n", []string{`1:1: want a mapping, got nothing`}},
		{"syntax", "name: x: y\n", []string{`1:8: not valid YAML: mapping values are not allowed in this context`}},
		{"unclosed quote", "name: x\nmode: 'y\n", []string{
			`3:1: not valid YAML: while scanning a quoted scalar at line 2, column 7: found unexpected end of stream`,
		}},
		{"tab", "items:\n\t- name: x\n", []string{`2:1: not valid YAML: found character that cannot start any token`}},
		{"control character", "name: \"é\x00\"\n", []string{`1:9: not valid YAML: control character U+0000 is not allowed`}},
		{"not UTF-8", "name: x\nmode: a\xff\n", []string{`2:8: not valid YAML: byte 0xff is not UTF-8`}},
		{"tag", "name: !secret x\n", []string{`1:7: the tag !secret has no meaning here: leave it out`}},
		{"number that is none", "data: [.inf, .nan]\n", []string{`1:8: ".inf": want a finite number`, `1:14: ".nan": want a finite number`}},
		{"variables", "name: ${NOBODY}\nmode: ${1}\ntags: [\"${HOST\"]\nfor: ${NOBODY:-1s}\nat: ${EMPTY:-2027-01-01T00:00:00Z}\ncount: ${SECRET}\n", []string{
			`1:7: environment variable NOBODY is not set: set it or write ${NOBODY:-default}`,
			`2:7: "${1}": want ${NAME} or ${NAME:-default}, or $${ for a literal ${`,
			`3:8: "${HOST": want ${NAME} or ${NAME:-default}, or $${ for a literal ${`,
			`6:8: "${SECRET}": want a whole number from 0 to 100`,
		}},
		{"alias", "items: [&a {name: x}, *a]\n", nil},
		{"unknown alias", "name: *a\n", []string{`1:7: not valid YAML: unknown anchor 'a' referenced`}},
		{"alias in a circle", "items: &a [{items: *a}]\n", []string{`1:20: alias *a stands inside the value that it names`}},
		{"problem in an aliased value is named once", "items: [&a {count: x}, *a, *a]\n", []string{
			`1:20: "x": want a whole number from 0 to 100`,
		}},
		{"merge key", "items:\n  - &a {name: x, count: 1}\n  - {<<: *a, count: 2}\n  - {<<: [{on: true}, *a], on: false}\n", nil},
		{"merge of what is no mapping", "<<: x\n", []string{`1:5: want a mapping, got text`}},
		{"merged key that is unknown", "items: [&a {colour: x}, {<<: *a}]\n", []string{
			`1:13: unknown key "colour": want one of at, count, data, for, items, mode, name, on, tags`,
		}},
		{"more aliases than a bomb needs, but harmless", "data: [&a x" + strings.Repeat(", *a", 50_000) + "]\n", nil},
		{"alias bomb", bomb(), []string{`1:1: its aliases stand for more than 100000 values: write fewer`}},
		{"too deep", "data: " + strings.Repeat("[", 20_000), []string{`1:10007: not valid YAML: exceeded max depth of 10000`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			doc := yamlfile.Parse("f.yaml", []byte(c.text), yamlfile.Options{Lookup: lookup})
			read(doc.Root())
			var got []string
			for _, p := range problems(t, doc.Err()) {
				got = append(got, strings.TrimPrefix(p.Error(), "f.yaml:"))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// problems checks that every error names the file, and returns them.
func problems(t *testing.T, err error) yamlfile.Problems {
	t.Helper()
	if err == nil {
		return nil
	}
	ps, ok := errors.AsType[yamlfile.Problems](err)
	if !ok {
		t.Fatalf("Err() = %T, want yamlfile.Problems", err)
	}
	for _, p := range ps {
		if p.File != "f.yaml" {
			t.Errorf("problem in file %q: %v", p.File, p)
		}
	}
	return ps
}

// bomb is the billion laughs: nine levels of nine aliases.
func bomb() string {
	var b strings.Builder
	b.WriteString("data:\n  a: &a0 [x]\n")
	for i := range 9 {
		fmt.Fprintf(&b, "  a: &a%d [%s*a%d]\n", i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 8), i)
	}
	return b.String()
}

func TestMergeKeys(t *testing.T) {
	doc := yamlfile.Parse("f.yaml", []byte(`
items:
  - &a {name: x, count: 1}
  - {<<: *a, count: 2}
  - {<<: [{on: true, count: 3}, *a], mode: shadow}
  - <<: {<<: *a, count: 4}
`), yamlfile.Options{})
	got := read(doc.Root()).Items
	if err := doc.Err(); err != nil {
		t.Fatal(err)
	}
	want := []settings{
		{Name: "x", Count: 1},
		{Name: "x", Count: 2},
		{Name: "x", Count: 3, On: true, Mode: "shadow"},
		{Name: "x", Count: 4},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestErrCanBeAskedTwice(t *testing.T) {
	doc := yamlfile.Parse("f.yaml", []byte("items: [&a {count: x}, *a, *a]\n"), yamlfile.Options{})
	read(doc.Root())
	first := doc.Err().Error()
	if second := doc.Err().Error(); first != second {
		t.Errorf("Err() = %q, then %q", first, second)
	}
}

func TestMapRemembersPlaces(t *testing.T) {
	doc := yamlfile.Parse("f.yaml", []byte("name: x\ncount:\n"), yamlfile.Options{})
	m := doc.Root().Map()
	if v, ok := m.Get("count"); ok {
		t.Errorf("Get(count) = %v, true for a null", v)
	}
	if !m.Has("count") || m.Has("mode") {
		t.Errorf("Has(count), Has(mode) = %v, %v, want true, false", m.Has("count"), m.Has("mode"))
	}
	m.At("name").Errorf("a")
	m.At("mode").Errorf("b")
	m.Done()
	want := "f.yaml:1:1: b\nf.yaml:1:1: unknown key \"name\": want one of count, mode\nf.yaml:1:7: a"
	if err := doc.Err(); err == nil || err.Error() != want {
		t.Errorf("Err() = %v, want %s", err, want)
	}
}

func TestErrorsDoNotRepeatSecrets(t *testing.T) {
	doc := yamlfile.Parse("f.yaml", []byte("items: [hunter2]\ntags: {a: hunter2}\ncount: ${SECRET}\nmode: x${SECRET}\nfor: ${SECRET}\n"),
		yamlfile.Options{Lookup: lookup})
	read(doc.Root())
	err := doc.Err()
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Err() = %v, want an error without the secret", err)
	}
}

func TestProblemsOfSeveralFiles(t *testing.T) {
	err := yamlfile.Problems{
		{File: "b", Line: 1, Column: 2, Message: "z"},
		{File: "a", Line: 10, Column: 1, Message: "y"},
		{File: "a", Line: 9, Column: 1, Message: "x"},
		{File: "a", Message: "w"},
	}.ErrOrNil()
	if got, want := err.Error(), "a: w\na:9:1: x\na:10:1: y\nb:1:2: z"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
	if p, ok := errors.AsType[yamlfile.Problem](err); !ok || p.Message != "w" {
		t.Errorf("first problem = %v, %v", p, ok)
	}
	if err := (yamlfile.Problems{}).ErrOrNil(); err != nil {
		t.Errorf("ErrOrNil() = %v without problems", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"name: x\ncount: 1\n", "items: [&a {name: x}, *a]\n", "items: &a [{items: *a}]\n", bomb(), "a: 1\n---\nb: 2\n",
		"<<: [{a: 1}, {b: 2}]\n", "data: {a: .nan, b: 0x1f, c: [~, yes]}\n", "name: ${HOST:-x}${\n", "\xff\xfea\x00", "? [a]\n: b\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<12 {
			return
		}
		doc := yamlfile.Parse("f.yaml", data, yamlfile.Options{Lookup: lookup})
		read(doc.Root())
		doc.Root().Any()
		lines := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") + 2
		for _, p := range problems(t, doc.Err()) {
			if p.Line < 1 || p.Column < 1 || p.Line > lines && !strings.ContainsAny(string(data), "\u0085\u2028\u2029") && utf8.Valid(data) {
				t.Errorf("problem out of the file: %v", p)
			}
		}
	})
}
