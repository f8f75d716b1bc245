package config

import (
	"regexp"
	"strings"

	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
	"github.com/tollgate-dev/tollgate/extauthz"
)

// credentials reads the places where a token may stand.
func (r *reader) credentials(n yamlfile.Node) {
	r.c.Policy.Credentials = nil
	for _, e := range n.List() {
		r.c.Policy.Credentials = append(r.c.Policy.Credentials, readPlace(e))
	}
	if n.IsList() && len(r.c.Policy.Credentials) == 0 {
		n.Errorf("want at least one place: without any, nobody could show a token")
	}
}

func readPlace(n yamlfile.Node) extauthz.Place {
	var p extauthz.Place
	var given []string
	place := func(key string, read func(yamlfile.Node)) func(yamlfile.Node) {
		return func(n yamlfile.Node) {
			given = append(given, key)
			read(n)
		}
	}
	var scheme yamlfile.Node
	n.Each(map[string]func(yamlfile.Node){
		"header": place("header", func(n yamlfile.Node) { p.Header = headerName(n, n.String()) }),
		"scheme": func(n yamlfile.Node) { scheme, p.Scheme = n, n.String() },
		"query":  place("query", func(n yamlfile.Node) { p.Query = nonEmpty(n) }),
		"cookie": place("cookie", func(n yamlfile.Node) { p.Cookie = nonEmpty(n) }),
		"principal": place("principal", func(n yamlfile.Node) {
			if p.Principal = n.Bool(); !p.Principal {
				n.Errorf("want true: leave the line out for no")
			}
		}),
		"metadata": place("metadata", func(n yamlfile.Node) {
			if p.Metadata = n.Strings(); len(p.Metadata) < 2 {
				n.Errorf("want a namespace and at least one key, as [envoy.filters.http.jwt_authn, payload, sub]")
			}
		}),
	})
	if len(given) != 1 && n.IsMap() {
		n.Errorf("want exactly one of header, query, cookie, principal, metadata in a place")
	}
	if !scheme.Null() && p.Header == "" {
		scheme.Errorf("scheme: belongs to a header")
	}
	return p
}

func nonEmpty(n yamlfile.Node) string {
	s := n.String()
	if s == "" {
		n.Errorf("want a name")
	}
	return s
}

var token = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$") // RFC 9110, section 5.6.2

// headerName returns a header's name as Envoy sends it: in lower case.
func headerName(n yamlfile.Node, s string) string {
	if !token.MatchString(s) {
		n.Errorf("%q: want the name of a header", s)
	}
	return strings.ToLower(s)
}

var id = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,128}$`)

func (r *reader) readAnonymous(n yamlfile.Node) {
	s := n.String()
	switch {
	case s == "deny":
		s = ""
	case !id.MatchString(s):
		n.Errorf("%q: want deny, or the id of a consumer: 1 to 128 of A-Z a-z 0-9 . _ @ -", s)
	}
	r.anonymous, r.c.Policy.Anonymous = n, s
}

func (r *reader) authz(n yamlfile.Node) {
	n.Each(map[string]func(yamlfile.Node){
		"domain": func(n yamlfile.Node) { r.c.Policy.Domain = nonEmpty(n) },
		"descriptors": func(n yamlfile.Node) {
			r.c.Policy.Descriptors = nil
			for _, line := range n.List() {
				r.c.Policy.Descriptors = append(r.c.Policy.Descriptors, readLine(line))
			}
		},
	})
}

// readLine reads one descriptor: a list of sources.
func readLine(n yamlfile.Node) []extauthz.Source {
	var line []extauthz.Source
	seen := map[string]bool{}
	for _, e := range n.List() {
		s := readSource(e)
		if seen[s.Key] {
			e.Errorf("key %q stands twice in this descriptor", s.Key)
		}
		seen[s.Key] = true
		line = append(line, s)
	}
	if n.IsList() && len(line) == 0 {
		n.Errorf("an empty descriptor: want at least one source")
	}
	return line
}

// readSource reads one entry of a descriptor: {key, from, regex}, or the source
// alone, which is then the key as well.
func readSource(n yamlfile.Node) extauthz.Source {
	var s extauthz.Source
	if !n.IsMap() {
		s.Key = n.String()
		readFrom(n, s.Key, &s)
		return s
	}
	m := n.Map()
	if from, ok := m.Get("from"); ok {
		s.Key = from.String()
		readFrom(from, s.Key, &s)
	} else {
		n.Errorf("from: want where the value comes from, one of %s", sourceList)
	}
	if key, ok := m.Get("key"); ok {
		s.Key = nonEmpty(key)
	}
	if regex, ok := m.Get("regex"); ok {
		compiled, err := regexp.Compile(regex.String())
		if err != nil {
			regex.Errorf("%v", err)
		}
		s.Regex = compiled
	}
	m.Done()
	return s
}

const sourceList = "consumer, token, label:NAME, method, path, host, header:NAME, query:NAME, remote_address, principal, metadata:NAMESPACE:KEY, context:KEY"

func readFrom(n yamlfile.Node, text string, s *extauthz.Source) {
	from, name, named := strings.Cut(text, ":")
	s.From, s.Name = from, name
	ok := true
	switch from {
	case "consumer", "token", "method", "path", "host", "remote_address", "principal":
		ok = !named
	case "header":
		s.Name = headerName(n, name)
	case "label", "query", "context":
		ok = name != ""
	case "metadata":
		s.Name, s.Field, _ = strings.Cut(name, ":")
		ok = s.Name != "" && s.Field != ""
	default:
		ok = false
	}
	if !ok {
		n.Errorf("%q: want one of %s", text, sourceList)
	}
}
