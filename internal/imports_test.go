package internal_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/tollgate-dev/tollgate"

// The layers, lowest first. A package may import its own layer and every one
// below, never one above. Why: what counts must not know what asks, so that
// each layer can be read, tested and replaced alone.
var layers = []string{"limits", "descriptors", "extauthz", "envoy", "internal", "cmd"}

// thirdParty says which modules from elsewhere the two lowest layers may use,
// by the nearest named directory. A new dependency down there is a decision,
// and this is where it is taken.
var thirdParty = map[string][]string{
	"limits":                         {"github.com/hashicorp/golang-lru/v2"},
	"limits/redis":                   {"github.com/redis/rueidis"},
	"descriptors":                    {},
	"descriptors/yamlfile":           {"go.yaml.in/yaml/v4"},
	"descriptors/consumers/embedded": {"go.etcd.io/bbolt"},
	"descriptors/consumers/postgres": {"github.com/jackc/pgx/v5"},
	"descriptors/consumers/mysql":    {"github.com/go-sql-driver/mysql"},
	"descriptors/consumers/apollo":   {"github.com/go-sql-driver/mysql"},
	"envoy/fastgrpc":                 {"golang.org/x/net"},
}

// testOnlyIn are modules that the tests of a package may use beside those.
var testOnlyIn = map[string][]string{
	"envoy/fastgrpc": {"google.golang.org/grpc", "google.golang.org/protobuf", "github.com/envoyproxy/go-control-plane"},
}

// standsAlone are packages that use nothing of this module but in tests.
var standsAlone = []string{"envoy/fastgrpc"}

// testOnly are modules that tests anywhere may use.
var testOnly = []string{"github.com/google/go-cmp", "github.com/rogpeppe/go-internal"}

func TestImportsPointOneWay(t *testing.T) {
	root := ".."
	seen := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || ownModule(path)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		seen++
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(rel))
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if why := forbidden(dir, imported, strings.HasSuffix(path, "_test.go")); why != "" {
				t.Errorf("%s imports %s: %s", rel, imported, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 10 {
		t.Fatalf("read %d Go files, which cannot be all", seen)
	}
}

// ownModule reports whether a folder is a module of its own.
func ownModule(path string) bool {
	matches, _ := filepath.Glob(filepath.Join(path, "go.mod"))
	return path != ".." && len(matches) > 0
}

// forbidden says why a file in dir must not import a package, or "".
func forbidden(dir, imported string, test bool) string {
	if within, ok := strings.CutPrefix(imported, module+"/"); ok {
		if !test && slices.Contains(standsAlone, dir) {
			return "nothing of this module: see standsAlone in this test"
		}
		return wrongWay(dir, within, test)
	}
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		return "" // standard library
	}
	if test && (anyWithin(imported, testOnly) || anyWithin(imported, testOnlyIn[dir])) {
		return ""
	}
	for d := dir; d != "."; d = filepath.ToSlash(filepath.Dir(d)) {
		if allowed, named := thirdParty[d]; named && !anyWithin(imported, allowed) {
			return "not a dependency of " + d + ": see thirdParty in this test"
		} else if named {
			return ""
		}
	}
	return ""
}

// wrongWay says why an import within the module is against the rule, or "".
func wrongWay(dir, imported string, test bool) string {
	from, to := slices.Index(layers, layer(dir)), slices.Index(layers, layer(imported))
	switch {
	case strings.HasSuffix(imported, "test") && !test && !strings.HasSuffix(dir, "test"):
		return "a package for tests"
	case from < 0:
		return "" // examples use what they show
	case to < 0:
		return "not a layer that this test knows"
	case to > from:
		return layer(dir) + " is below " + layer(imported) + ": imports point one way"
	case dir == "limits" && to == from && !test:
		return "limits knows none of its subpackages"
	}
	return ""
}

func layer(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

func anyWithin(path string, modules []string) bool {
	return slices.ContainsFunc(modules, func(m string) bool {
		return path == m || strings.HasPrefix(path, m+"/")
	})
}

func TestTheRuleCanFail(t *testing.T) {
	for _, c := range []struct {
		dir, imported string
		want          bool // forbidden
	}{
		{"limits", module + "/descriptors", true},
		{"descriptors", module + "/limits", false},
		{"descriptors", module + "/extauthz", true},
		{"extauthz", module + "/descriptors/consumers", false},
		{"extauthz", module + "/internal/config", true},
		{"internal/config", module + "/extauthz", false},
		{"internal/config", module + "/cmd/tollgate", true},
		{"limits", "google.golang.org/grpc", true},
		{"limits", "sync/atomic", false},
		{"limits", module + "/limits/limitstest", true},
		{"descriptors", "google.golang.org/protobuf/proto", true},
		{"descriptors/yamlfile", "go.yaml.in/yaml/v4", false},
		{"descriptors/consumers", "go.etcd.io/bbolt", true},
		{"envoy", "google.golang.org/grpc", false},
	} {
		if got := forbidden(c.dir, c.imported, false) != ""; got != c.want {
			t.Errorf("forbidden(%q, %q) = %v, want %v", c.dir, c.imported, got, c.want)
		}
	}
}
