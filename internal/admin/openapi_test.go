package admin_test

import (
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/tollgate-dev/tollgate/internal/admin"
)

// document is what the tests read of openapi.yaml.
type document struct {
	OpenAPI string                          `yaml:"openapi"`
	Paths   map[string]map[string]yaml.Node `yaml:"paths"`
}

type operation struct {
	OperationID string `yaml:"operationId"`
	RequestBody any    `yaml:"requestBody"`
	Responses   map[string]any
}

// operations calls f for each operation of the document.
func (d document) operations(t *testing.T, f func(path, method string, o operation)) {
	t.Helper()
	for path, members := range d.Paths {
		for method, node := range members {
			if method == "parameters" {
				continue
			}
			var o operation
			if err := node.Decode(&o); err != nil {
				t.Fatalf("%s %s: %v", method, path, err)
			}
			f(path, strings.ToUpper(method), o)
		}
	}
}

func readDocument(t *testing.T) document {
	t.Helper()
	w := httptest.NewRecorder()
	admin.Document(w, httptest.NewRequest("GET", "/openapi.yaml", nil))
	if kind := w.Header().Get("content-type"); kind != "application/yaml" {
		t.Errorf("content-type %q", kind)
	}
	var d document
	if err := yaml.Unmarshal(w.Body.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(d.OpenAPI, "3.1.") {
		t.Errorf("OpenAPI %q, want 3.1", d.OpenAPI)
	}
	return d
}

// TestEveryRouteIsDescribed: and nothing that is not there.
func TestEveryRouteIsDescribed(t *testing.T) {
	described := map[string][]string{}
	readDocument(t).operations(t, func(path, method string, _ operation) {
		if strings.HasPrefix(path, "/v1/") {
			described[path] = append(described[path], method)
		}
	})
	for _, methods := range described {
		slices.Sort(methods)
	}
	if diff := cmp.Diff(admin.Routes(newFixture(t).api), described); diff != "" {
		t.Errorf("routes (-served +described):\n%s", diff)
	}
}

// TestEveryAnswerIsDescribed: what the guard and the reading of bodies can
// answer to any call.
func TestEveryAnswerIsDescribed(t *testing.T) {
	ids := map[string]bool{}
	readDocument(t).operations(t, func(path, method string, o operation) {
		if o.OperationID == "" || ids[o.OperationID] {
			t.Errorf("%s %s: operationId %q is missing or taken", method, path, o.OperationID)
		}
		ids[o.OperationID] = true
		if !strings.HasPrefix(path, "/v1/") {
			return
		}
		want := []string{"401", "403", "415", "500"}
		if o.RequestBody != nil {
			want = append(want, "400", "413", "422")
		}
		if strings.Contains(path, "{") {
			want = append(want, "404")
		}
		got := slices.Collect(maps.Keys(o.Responses))
		for _, status := range want {
			if !slices.Contains(got, status) {
				t.Errorf("%s %s does not describe %s", method, path, status)
			}
		}
	})
}
