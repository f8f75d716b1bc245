package admin

import (
	"maps"
	"slices"
)

// Routes returns every page with the methods that it answers.
func Routes(a *API) map[string][]string {
	all := map[string][]string{}
	for pattern, on := range a.routes() {
		all[pattern] = slices.Sorted(maps.Keys(on))
	}
	return all
}
