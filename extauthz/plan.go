package extauthz

import (
	"slices"
	"strings"
)

// plan is a Policy with what can be worked out beforehand.
type plan struct {
	policy  *Policy
	cookies []string   // names of cookies that hold credentials
	queries []string   // names of query parameters that do
	paths   [][]string // of the metadata that the policy reads
	remote  bool       // a descriptor needs the client's address
	missing string     // the detail of a 401: where to put a token
}

func newPlan(p *Policy) *plan {
	pl := &plan{policy: p, remote: p.RemoteAddress}
	var places []string
	for i := range p.Credentials {
		c := &p.Credentials[i]
		switch {
		case c.Header != "" && (wholeValue(c.Scheme) || c.Scheme == SchemeApollo):
			places = append(places, "in the header "+c.Header)
		case c.Header != "":
			places = append(places, "in the header "+c.Header+" as "+c.Scheme+" TOKEN")
		case c.Query != "":
			pl.queries = append(pl.queries, c.Query)
			places = append(places, "in the query parameter "+c.Query)
		case c.Cookie != "":
			pl.cookies = append(pl.cookies, c.Cookie)
			places = append(places, "in the cookie "+c.Cookie)
		case len(c.Metadata) > 0:
			pl.addPath(c.Metadata)
		}
	}
	for _, line := range p.Descriptors {
		for i := range line {
			switch s := &line[i]; s.From {
			case "metadata":
				pl.addPath([]string{s.Name, s.Field})
			case "remote_address":
				pl.remote = true
			}
		}
	}
	pl.missing = "This request carries no token."
	if len(places) > 0 {
		pl.missing += " Send one " + strings.Join(places, ", or ") + "."
	}
	return pl
}

func (p *plan) addPath(path []string) {
	if !slices.ContainsFunc(p.paths, func(q []string) bool { return slices.Equal(q, path) }) {
		p.paths = append(p.paths, path)
	}
}
