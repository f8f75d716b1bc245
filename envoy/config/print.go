package config

import (
	"bytes"
	"embed"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz"
)

//go:embed templates/*.yaml
var templates embed.FS

// Print writes the configuration that the options ask for. The error names
// every option that cannot be meant, and nothing is written then.
func Print(w io.Writer, o Options) error {
	o, err := o.withDefaults()
	if err != nil {
		return err
	}
	t := template.New("").Option("missingkey=error")
	t.Funcs(template.FuncMap{
		"part":     func(name string, indent int, data any) (string, error) { return part(t, name, indent, data) },
		"item":     func(name string, indent int, data any) (string, error) { return item(t, name, indent, data) },
		"quote":    strconv.Quote,
		"duration": duration,
		"address":  socketAddress,
	})
	if _, err := t.ParseFS(templates, "templates/*.yaml"); err != nil {
		return fmt.Errorf("parse templates: %w", err)
	}
	out, err := part(t, string(o.Format), 0, o)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, out)
	return err
}

// part executes a template and moves its lines to the right. A part without
// lines leaves none behind.
func part(t *template.Template, name string, indent int, data any) (string, error) {
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, name+".yaml", data); err != nil {
		return "", err
	}
	var out strings.Builder
	for line := range strings.Lines(b.String()) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		out.WriteString(strings.Repeat(" ", indent))
		out.WriteString(line)
	}
	return out.String(), nil
}

// item is part for a list's only item, without the list.
func item(t *template.Template, name string, indent int, data any) (string, error) {
	list, err := part(t, name, 0, data)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for line := range strings.Lines(list) {
		if !strings.HasPrefix(line, "#") {
			line = line[len("- "):]
		}
		out.WriteString(strings.Repeat(" ", indent) + line)
	}
	return out.String(), nil
}

// duration writes a duration as protobuf's JSON does: seconds.
func duration(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s"
}

// socketAddress writes a checked address as Envoy's.
func socketAddress(s string) (string, error) {
	a, err := parseEndpoint(s)
	if err != nil {
		return "", err
	}
	if a.Path != "" {
		return fmt.Sprintf("{pipe: {path: %q}}", a.Path), nil
	}
	return fmt.Sprintf("{socket_address: {address: %q, port_value: %d}}", a.Host, a.Port), nil
}

// The methods below are what the templates ask the options.

// Authorizes reports whether the mode uses ext_authz.
func (o Options) Authorizes() bool { return o.Mode != RateLimit }

// AsksRateLimit reports whether the mode uses the rate limit service.
func (o Options) AsksRateLimit() bool { return o.Mode == TwoPhase || o.Mode == RateLimit }

// Egresses reports whether the mode is about calls to others.
func (o Options) Egresses() bool { return o.Mode == ToEgress }

// LearnsByProcessor reports whether Tollgate sees answers as they come.
func (o Options) LearnsByProcessor() bool { return o.Egresses() && o.Egress.Learn == ByProcessor }

// LearnsByAccessLog reports whether Tollgate is told of answers afterwards.
func (o Options) LearnsByAccessLog() bool { return o.Egresses() && o.Egress.Learn == ByAccessLog }

// ForwardsAnywhere reports whether the request says which host it is for.
func (o Options) ForwardsAnywhere() bool { return o.Egresses() && o.Upstream == "" }

// discovery returns the type of a cluster of the given addresses.
func discovery(addresses []string) string {
	for _, s := range addresses {
		if a, err := parseEndpoint(s); err == nil && !a.IP() {
			return "STRICT_DNS"
		}
	}
	return "STATIC"
}

// UpstreamDiscovery returns the type of the upstream's clusters.
func (o Options) UpstreamDiscovery() string { return discovery([]string{o.Upstream}) }

// Clusters returns Envoy's clusters that are Tollgate.
func (o Options) Clusters() []Cluster {
	clusters := []Cluster{{"tollgate", o.Tollgate}}
	if o.StreamCluster() != clusters[0].Name {
		clusters = append(clusters, Cluster{o.StreamCluster(), o.Streams})
	}
	return clusters
}

// StreamCluster returns the name of the cluster that is asked over streams.
func (o Options) StreamCluster() string {
	if o.Egresses() && len(o.Streams) > 0 {
		return "tollgate_streams"
	}
	return "tollgate"
}

// Cluster is a cluster of Envoy.
type Cluster struct {
	Name      string
	Addresses []string
}

// Discovery returns the cluster's type.
func (c Cluster) Discovery() string { return discovery(c.Addresses) }

// IdleTimeout returns how long a stream may be silent, or 0 for Envoy's five
// minutes where these are enough.
func (o Options) IdleTimeout() time.Duration {
	if o.Timeout < 4*time.Minute {
		return 0
	}
	return o.Timeout + time.Minute
}

// Emptied returns the places that Envoy has to empty itself, because requests
// may pass that Tollgate has not seen.
func (o Options) Emptied() []extauthz.Place {
	if !o.FailOpen || !o.Authorizes() || o.KeepCredentials || o.Egresses() {
		return nil
	}
	var places []extauthz.Place
	for _, p := range o.Credentials {
		if p.Header != "" || p.Query != "" {
			places = append(places, p)
		}
	}
	return places
}

// EmptiesQuery reports whether Emptied has a query parameter.
func (o Options) EmptiesQuery() bool {
	for _, p := range o.Emptied() {
		if p.Query != "" {
			return true
		}
	}
	return false
}

// Namespaces returns the namespaces of Envoy's metadata that Tollgate needs to
// see, those of Envoy's own authentication filters always.
func (o Options) Namespaces() []string {
	names := []string{"envoy.filters.http.jwt_authn"}
	for _, p := range o.Credentials {
		if len(p.Metadata) > 0 && p.Metadata[0] != names[0] {
			names = append(names, p.Metadata[0])
		}
	}
	return names
}

// SPIFFE reports whether the server's name is an identity and not a host name.
func (t TLS) SPIFFE() bool { return strings.HasPrefix(t.ServerName, "spiffe://") }
