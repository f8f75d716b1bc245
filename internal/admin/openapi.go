package admin

import (
	_ "embed"
	"net/http"
)

//go:embed openapi.yaml
var document []byte

// Document serves the OpenAPI description of the API. It needs no token.
func Document(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("content-type", "application/yaml")
	_, _ = w.Write(document) // a caller that is gone needs no answer
}

// Reading lets only reading methods through to a page that needs no token.
func Reading(page http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			page(w, r)
		case http.MethodOptions:
			w.Header().Set("allow", reading)
			w.WriteHeader(http.StatusNoContent)
		default:
			w.Header().Set("allow", reading)
			problemf(http.StatusMethodNotAllowed, "want GET or HEAD").write(w)
		}
	}
}

const reading = "GET, HEAD, OPTIONS"

// NotFound answers for a page that there is not.
func NotFound(w http.ResponseWriter, r *http.Request) {
	problemf(http.StatusNotFound, "no such page: %s", r.URL.Path).write(w)
}
