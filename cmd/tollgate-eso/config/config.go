// Package config reads the companion's configuration: YAML, strictly, with every
// problem at once.
//
//	listen: 0.0.0.0:8090                    # webhooks; default 127.0.0.1:8090
//	tls: {cert: server.pem, key: server.key, client_ca: clients.pem}
//	status: 0.0.0.0:8091                    # /metrics, /status, /healthz, /readyz; default 127.0.0.1:8091
//	tollgate: {server: "http://tollgate:8080", token: "${TOLLGATE_ADMIN_TOKEN:-}"}
//	upstreams:                              # default: keeper, for all stores of Keeper
//	  - id: keeper                          # as in Tollgate's configuration
//	    provider: keepersecurity            # its stores, or of these only:
//	    stores: [ClusterSecretStore/keeper, SecretStore/team-a/keeper]
//	    sync_windows: 10m                   # set windows in pauses of at least that length; default: never
//	    park: {all: false, after: 10, every: 24h}   # what fails that often is tried so rarely; all: also without tollgate.dev/park
//	webhooks:                               # default: none, and nothing is received
//	  - name: keeper                        # POST /webhooks/keeper
//	    preset: keeper                      # or paths of your own, below
//	    upstream: keeper
//	    secret: ${KEEPER_WEBHOOK_SECRET}    # Authorization: Bearer …, or the last part of the path
//	    client_sans: [alerts.example.com]   # or a client certificate with one of these names
//	    replay: 10m                         # how far an event's time may be from now
//	    rate: 20                            # events a second, and a burst of as many as five seconds have
//	    event: $.audit_event                # JSON paths
//	    records: [$.record_uid]
//	    titles: [$.title]
//	    time: $.timestamp
//	    id: $.event_id
//	    effects: {record_update: record, folder_change: all}   # others are ignored
//	push: {coalesce: 2s, net: 24h}
//	savings: {polled: 5m}                   # what /status compares with
package config

import (
	"crypto/sha256"
	"strings"
	"time"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/guard"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/webhook"
	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
)

// Config is a configuration.
type Config struct {
	Listen    string
	Status    string
	TLS       TLS
	Server    string // Tollgate's admin API
	Token     string
	Upstreams []Upstream
	Hooks     []webhook.Hook
	Coalesce  time.Duration // 0: the default
	Net       time.Duration // 0: the default
	Polled    time.Duration // what savings are measured against
}

// TLS is files. No Cert is plaintext.
type TLS struct{ Cert, Key, ClientCA string }

// Upstream is an upstream of Tollgate's and who draws on it.
type Upstream struct {
	ID      string
	Stores  eso.Selector
	Windows time.Duration // 0: never
	Park    guard.Park
}

// Default is the configuration without a file: Keeper's stores, and no webhook.
func Default() *Config {
	return &Config{
		Listen: "127.0.0.1:8090", Status: "127.0.0.1:8091", Server: "http://127.0.0.1:8080", Polled: 5 * time.Minute,
		Upstreams: []Upstream{{ID: "keeper", Stores: eso.Selector{Provider: "keepersecurity"}}},
	}
}

// Parse reads a configuration. The error is yamlfile.Problems.
func Parse(file string, data []byte, o yamlfile.Options) (*Config, error) {
	doc := yamlfile.Parse(file, data, o)
	c := Default()
	if doc.Empty() {
		return c, doc.Err()
	}
	doc.Root().Each(map[string]func(yamlfile.Node){
		"listen": func(n yamlfile.Node) { c.Listen = n.String() },
		"status": func(n yamlfile.Node) { c.Status = n.String() },
		"tls": func(n yamlfile.Node) {
			n.Each(map[string]func(yamlfile.Node){
				"cert":      func(n yamlfile.Node) { c.TLS.Cert = n.String() },
				"key":       func(n yamlfile.Node) { c.TLS.Key = n.String() },
				"client_ca": func(n yamlfile.Node) { c.TLS.ClientCA = n.String() },
			})
			if c.TLS.Cert == "" || c.TLS.Key == "" {
				n.Errorf("tls: want both cert and key")
			}
		},
		"tollgate": func(n yamlfile.Node) {
			n.Each(map[string]func(yamlfile.Node){
				"server": func(n yamlfile.Node) { c.Server = n.String() },
				"token":  func(n yamlfile.Node) { c.Token = n.String() },
			})
		},
		"upstreams": c.readUpstreams,
		"webhooks":  func(yamlfile.Node) {}, // below: they name upstreams
		"savings": func(n yamlfile.Node) {
			n.Each(map[string]func(yamlfile.Node){"polled": func(n yamlfile.Node) { c.Polled = positive(n) }})
		},
		"push": func(n yamlfile.Node) {
			n.Each(map[string]func(yamlfile.Node){
				"coalesce": func(n yamlfile.Node) { c.Coalesce = positive(n) },
				"net":      func(n yamlfile.Node) { c.Net = positive(n) },
			})
		},
	})
	if n, ok := doc.Root().Map().Get("webhooks"); ok {
		c.readHooks(n)
	}
	return c, doc.Err()
}

func positive(n yamlfile.Node) time.Duration {
	d := n.Duration()
	if d <= 0 {
		n.Errorf("want a duration above 0, as 2s")
	}
	return d
}

func (c *Config) readUpstreams(n yamlfile.Node) {
	c.Upstreams = nil
	for _, e := range n.List() {
		u := Upstream{Stores: eso.Selector{Provider: "keepersecurity"}}
		e.Each(map[string]func(yamlfile.Node){
			"id":           func(n yamlfile.Node) { u.ID = n.String() },
			"provider":     func(n yamlfile.Node) { u.Stores.Provider = n.String() },
			"sync_windows": func(n yamlfile.Node) { u.Windows = positive(n) },
			"park": func(n yamlfile.Node) {
				n.Each(map[string]func(yamlfile.Node){
					"all":   func(n yamlfile.Node) { u.Park.All = n.Bool() },
					"after": func(n yamlfile.Node) { u.Park.After = int(n.Int(3, 1000)) },
					"every": func(n yamlfile.Node) { u.Park.Every = positive(n) },
				})
			},
			"stores": func(n yamlfile.Node) {
				for _, s := range n.List() {
					u.Stores.Stores = append(u.Stores.Stores, readStore(s))
				}
			},
		})
		if u.ID == "" {
			e.Errorf("want an id: that of the upstream in Tollgate's configuration")
		} else if c.upstream(u.ID) {
			e.Errorf("id %q: stands for another upstream already", u.ID)
		}
		c.Upstreams = append(c.Upstreams, u)
	}
}

func (c *Config) upstream(id string) bool {
	for _, u := range c.Upstreams {
		if u.ID == id {
			return true
		}
	}
	return false
}

func readStore(n yamlfile.Node) eso.Store {
	store, ok := eso.ParseStore(n.String())
	if !ok {
		n.Errorf("want ClusterSecretStore/NAME or SecretStore/NAMESPACE/NAME")
	}
	return store
}

// shortest is how long a secret must be: what people can remember can be guessed.
const shortest = 16

// readHooks reads the webhooks, when upstreams are known.
func (c *Config) readHooks(n yamlfile.Node) {
	for _, e := range n.List() {
		h := c.readHook(e)
		for _, other := range c.Hooks {
			if other.Name == h.Name {
				e.Errorf("name %q: stands for another webhook already", h.Name)
			}
		}
		c.Hooks = append(c.Hooks, h)
	}
}

func (c *Config) readHook(n yamlfile.Node) webhook.Hook {
	h := webhook.Hook{Replay: 10 * time.Minute, Rate: 20}
	if p, ok := n.Map().Get("preset"); ok {
		h.Adapter = webhook.Presets()[p.OneOf("keeper")]
	}
	n.Each(map[string]func(yamlfile.Node){
		"preset":      func(yamlfile.Node) {},
		"name":        func(n yamlfile.Node) { h.Name = n.String() },
		"upstream":    func(n yamlfile.Node) { h.Upstream = n.String() },
		"client_sans": func(n yamlfile.Node) { h.SANs = n.Strings() },
		"replay":      func(n yamlfile.Node) { h.Replay = positive(n) },
		"rate":        func(n yamlfile.Node) { h.Rate = float64(n.Int(1, 10_000)) },
		"secret": func(n yamlfile.Node) {
			secret := n.String()
			if len(secret) < shortest {
				n.Errorf("want a secret of at least %d characters, as from `openssl rand -hex 32`", shortest)
			}
			h.Secret = sha256.Sum256([]byte(secret))
		},
		"event":   func(n yamlfile.Node) { h.Adapter.Event = path(n) },
		"time":    func(n yamlfile.Node) { h.Adapter.Time = path(n) },
		"id":      func(n yamlfile.Node) { h.Adapter.ID = path(n) },
		"records": func(n yamlfile.Node) { h.Adapter.Records = paths(n) },
		"titles":  func(n yamlfile.Node) { h.Adapter.Titles = paths(n) },
		"effects": func(n yamlfile.Node) { h.Adapter.Effects = effects(n) },
	})
	h.Burst = int(5 * h.Rate)
	c.checkHook(n, h)
	return h
}

// checkHook reports what a webhook cannot be without. It is closed by default:
// one that everybody may send to is none.
func (c *Config) checkHook(n yamlfile.Node, h webhook.Hook) {
	if h.Name == "" || strings.ContainsAny(h.Name, "/?#% ") {
		n.Errorf("want a name, which is the last part of its path")
	}
	if !c.upstream(h.Upstream) {
		n.Errorf("upstream %q: want one of upstreams", h.Upstream)
	}
	if h.Secret == (webhook.Digest{}) && len(h.SANs) == 0 {
		n.Errorf("want a secret, or client_sans with tls.client_ca: a webhook that anybody may send to is not served")
	}
	if len(h.SANs) > 0 && c.TLS.ClientCA == "" {
		n.Errorf("client_sans: want tls.client_ca to check certificates by")
	}
	if len(h.Adapter.Records)+len(h.Adapter.Titles) == 0 {
		n.Errorf("want a preset, or records: the JSON paths of the records in a body")
	}
}

func path(n yamlfile.Node) webhook.Path {
	p, err := webhook.ParsePath(n.String())
	if err != nil {
		n.Errorf("%v", err)
	}
	return p
}

func paths(n yamlfile.Node) []webhook.Path {
	var all []webhook.Path
	for _, e := range n.List() {
		all = append(all, path(e))
	}
	return all
}

func effects(n yamlfile.Node) map[string]webhook.Effect {
	all := map[string]webhook.Effect{}
	for _, e := range n.Map().Entries() {
		all[e.Key] = webhook.Effect(e.Value.OneOf(string(webhook.Record), string(webhook.All), string(webhook.Ignore)))
	}
	return all
}
