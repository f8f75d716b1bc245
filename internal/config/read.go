package config

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/apollo"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/file"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/mysql"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/postgres"
	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

// reader fills a Config from a document; problems stay in the document.
type reader struct {
	c   Config
	dir string // of the file, for relative paths

	// Where the values stand whose problems show only with other files.
	consumersFile, rulesFiles, anonymous, tls, plans yamlfile.Node
}

func (r *reader) read(n yamlfile.Node) {
	given := map[string]bool{}
	note := func(key string, read func(yamlfile.Node)) func(yamlfile.Node) {
		return func(n yamlfile.Node) { given[key] = true; read(n) }
	}
	n.Each(map[string]func(yamlfile.Node){
		"listen":            r.listen,
		"admin":             r.admin,
		"credentials":       note("credentials", r.credentials),
		"strip_credentials": note("strip_credentials", func(n yamlfile.Node) { r.c.Policy.Strip = n.Bool() }),
		"anonymous":         note("anonymous", r.readAnonymous),
		"consumers":         r.consumers,
		"plans":             func(n yamlfile.Node) { r.plans, r.c.Consumers.Plans = n, file.ReadPlans(n) },
		"limits":            r.limits,
		"authz":             r.authz,
		"rules":             r.rules,
		"cluster":           r.cluster,
		"upstreams":         r.upstreams,
		"telemetry":         r.telemetry,
	})
	r.beforePortal(given)
}

// path makes a path of the file relative to the file.
func (r *reader) path(n yamlfile.Node) string {
	s := n.String()
	if s == "" || filepath.IsAbs(s) {
		return s
	}
	return filepath.Join(r.dir, s)
}

func (r *reader) listen(n yamlfile.Node) {
	n.Each(map[string]func(yamlfile.Node){
		"grpc": func(n yamlfile.Node) { r.c.Listen.GRPC = r.address(n) },
		"http": func(n yamlfile.Node) {
			if r.c.Listen.HTTP = r.address(n); strings.HasPrefix(r.c.Listen.HTTP, "unix:") {
				n.Errorf("want HOST:PORT: only grpc and fast may be sockets")
			}
		},
		"fast":                     func(n yamlfile.Node) { r.c.Listen.Fast = r.address(n) },
		"tls":                      r.readTLS,
		"drain":                    func(n yamlfile.Node) { r.c.Listen.Drain = n.Duration() },
		"max_connection_age":       func(n yamlfile.Node) { r.c.Listen.MaxConnectionAge = n.Duration() },
		"max_connection_age_grace": func(n yamlfile.Node) { r.c.Listen.MaxConnectionAgeGrace = n.Duration() },
	})
	if l := r.c.Listen; l.MaxConnectionAgeGrace > 0 && l.MaxConnectionAge == 0 {
		n.Errorf("max_connection_age_grace: want max_connection_age too: without it no connection becomes too old")
	}
}

// address reads HOST:PORT or unix:PATH; the path is relative to the file.
func (r *reader) address(n yamlfile.Node) string {
	s := n.String()
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path == "" {
			n.Errorf("%q: want unix:PATH", s)
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(r.dir, path)
		}
		return "unix:" + path
	}
	if !isHostPort(s) {
		n.Errorf("%q: want HOST:PORT or unix:PATH", s)
	}
	return s
}

func isHostPort(s string) bool {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

func (r *reader) readTLS(n yamlfile.Node) {
	var t TLS
	n.Each(map[string]func(yamlfile.Node){
		"cert":        func(n yamlfile.Node) { t.Cert = r.path(n) },
		"key":         func(n yamlfile.Node) { t.Key = r.path(n) },
		"client_ca":   func(n yamlfile.Node) { t.ClientCA = r.path(n) },
		"client_sans": func(n yamlfile.Node) { t.ClientSANs = n.Strings() },
	})
	switch {
	case t.Cert == "" || t.Key == "":
		n.Errorf("tls: want both cert and key")
		return
	case len(t.ClientSANs) > 0 && t.ClientCA == "":
		n.Errorf("client_sans: want client_ca too: without it no client certificate is checked")
	}
	r.c.Listen.TLS, r.tls = &t, n
}

func (r *reader) admin(n yamlfile.Node) {
	n.Each(map[string]func(yamlfile.Node){
		"token": func(n yamlfile.Node) {
			if s := n.String(); s != "" {
				r.c.Admin.Token = sha256.Sum256([]byte(s))
			}
		},
	})
}

func (r *reader) consumers(n yamlfile.Node) {
	c := &r.c.Consumers
	var file, dsn, poll, sessions yamlfile.Node // where they stand
	n.Each(map[string]func(yamlfile.Node){
		"source": func(n yamlfile.Node) {
			c.Source = n.OneOf(SourceEmbedded, SourceFile, SourcePostgres, SourceMySQL, SourceApollo)
		},
		"file": func(n yamlfile.Node) { file, c.File = n, r.path(n) },
		"dsn":  func(n yamlfile.Node) { dsn, c.DSN = n, n.String() },
		"poll": func(n yamlfile.Node) { poll, c.Poll = n, positive(n) },
		"sessions": func(n yamlfile.Node) {
			sessions = n
			ls, err := ParseDefault(n.String())
			if err != nil {
				n.Errorf("%v", err)
			}
			c.Sessions = ls
		},
	})
	switch c.Source {
	case SourceFile:
		if r.consumersFile = file; c.File == "" {
			n.Errorf("source file: want file, the path of the consumers file")
		}
	case SourcePostgres:
		checkDSN(n, dsn, c, postgres.CheckDSN)
	case SourceMySQL:
		checkDSN(n, dsn, c, mysql.CheckDSN)
	case SourceApollo:
		checkDSN(n, dsn, c, mysql.CheckDSN)
	}
	if c.Source != SourceApollo && !sessions.Null() {
		sessions.Errorf("sessions: belongs to source apollo, not to source %s", c.Source)
	}
	if c.Source != SourceFile && !file.Null() {
		file.Errorf("file: belongs to source file, not to source %s", c.Source)
	}
	for _, given := range []yamlfile.Node{dsn, poll} {
		if !given.Null() && (c.Source == SourceEmbedded || c.Source == SourceFile) {
			given.Errorf("belongs to the sources postgres, mysql and apollo, not to source %s", c.Source)
		}
	}
}

// beforePortal sets what a gate before Apollo's portal needs where the file does
// not say.
func (r *reader) beforePortal(given map[string]bool) {
	if r.c.Consumers.Source != SourceApollo {
		return
	}
	if !given["credentials"] {
		r.c.Policy.Credentials = []extauthz.Place{{Header: "authorization", Scheme: extauthz.SchemeApollo}}
	}
	if !given["strip_credentials"] {
		r.c.Policy.Strip = false
	}
	if !given["anonymous"] {
		r.c.Policy.Anonymous = apollo.Sessions
	}
	if r.c.Consumers.Sessions == nil {
		r.c.Consumers.Sessions = consumers.Limits{{Limit: limits.Limit{Kind: limits.Rate, N: 1000, Period: time.Second}}}
	}
}

// checkDSN says what is wrong with a DSN, never what it is: it holds a password.
func checkDSN(n, dsn yamlfile.Node, c *Consumers, check func(string) error) {
	if dsn.Null() {
		n.Errorf("source %s: want dsn, which names the database", c.Source)
		return
	}
	if err := check(c.DSN); err != nil {
		dsn.Errorf("%v", err)
	}
}

func (r *reader) limits(n yamlfile.Node) {
	l := &r.c.Limits
	n.Each(map[string]func(yamlfile.Node){
		"mode":    func(n yamlfile.Node) { r.c.Policy.Mode = word(n, modes) },
		"headers": func(n yamlfile.Node) { r.c.Policy.Headers = word(n, headers) },
		"default": func(n yamlfile.Node) {
			if s, ok := n.Scalar(); ok {
				d, err := ParseDefault(s)
				if err != nil {
					n.Errorf("%v", err)
				}
				l.Default = d
			}
		},
		"warm_up": func(n yamlfile.Node) { l.WarmUp = consumers.ReadWarmUp(n, l.WarmUp) },
		"cache": func(n yamlfile.Node) {
			n.Each(map[string]func(yamlfile.Node){
				"size": func(n yamlfile.Node) { l.Cache.Size = int(n.Int(1, 100_000_000)) },
				"idle": func(n yamlfile.Node) { l.Cache.Idle = positive(n) },
			})
		},
	})
}

// ParseDefault reads limits.default: a rate such as 20/s, or none.
func ParseDefault(s string) (consumers.Limits, error) {
	l, err := consumers.ParseLimit(s)
	if err != nil || l == nil {
		return consumers.Limits{}, err
	}
	return consumers.Limits{*l}, nil
}

// ParseLevel reads telemetry.log.level.
func ParseLevel(s string) (slog.Level, error) {
	for _, l := range levels {
		if l.word == s {
			return l.value, nil
		}
	}
	return 0, fmt.Errorf("%q: want one of debug, info, warn, error", s)
}

// LevelWord is a level as ParseLevel reads it.
func LevelWord(l slog.Level) string { return strings.ToLower(l.String()) }

// ParseMode reads limits.mode.
func ParseMode(s string) (extauthz.Mode, error) {
	for _, m := range modes {
		if m.word == s {
			return m.value, nil
		}
	}
	return 0, fmt.Errorf("%q: want one of enforce, shadow, off", s)
}

// ModeWord returns the word for a mode.
func ModeWord(m extauthz.Mode) string { return modes[m].word }

func (r *reader) rules(n yamlfile.Node) {
	n.Each(map[string]func(yamlfile.Node){
		"files": func(n yamlfile.Node) {
			r.rulesFiles = n
			for _, e := range n.List() {
				r.c.Rules.Files = append(r.c.Rules.Files, r.path(e))
			}
		},
		"count_refused": func(n yamlfile.Node) { r.c.Rules.CountRefused = n.Bool() },
	})
}

func (r *reader) telemetry(n yamlfile.Node) {
	t := &r.c.Telemetry
	n.Each(map[string]func(yamlfile.Node){
		"traces":        func(n yamlfile.Node) { t.Traces = n.OneOf("none", "otlp") == "otlp" },
		"top_consumers": func(n yamlfile.Node) { t.TopConsumers = int(n.Int(0, 10_000)) },
		"audit": func(n yamlfile.Node) {
			if t.Audit = nonEmpty(n); t.Audit != AuditLog && t.Audit != AuditStdout {
				t.Audit = r.path(n)
			}
		},
		"log": func(n yamlfile.Node) {
			n.Each(map[string]func(yamlfile.Node){
				"level":          func(n yamlfile.Node) { t.LogLevel = word(n, levels) },
				"format":         func(n yamlfile.Node) { t.LogFormat = n.OneOf("json", "text") },
				"refusals_every": func(n yamlfile.Node) { t.RefusalsEvery = positive(n) },
			})
		},
	})
}

// positive reads a duration that is not 0.
func positive(n yamlfile.Node) time.Duration {
	d := n.Duration()
	if d != 0 || n.IsMap() || n.IsList() {
		return d
	}
	s := n.String()
	if zero, err := time.ParseDuration(s); err == nil && zero == 0 {
		n.Errorf("%q: want more than 0", s)
	}
	return d
}

// named is a word of the file and what it stands for.
type named[T any] struct {
	word  string
	value T
}

var (
	modes   = []named[extauthz.Mode]{{"enforce", extauthz.Enforce}, {"shadow", extauthz.Shadow}, {"off", extauthz.Off}}
	headers = []named[extauthz.Headers]{{"ietf", extauthz.HeadersIETF}, {"draft03", extauthz.HeadersDraft03}, {"none", extauthz.HeadersNone}}
	levels  = []named[slog.Level]{{"debug", slog.LevelDebug}, {"info", slog.LevelInfo}, {"warn", slog.LevelWarn}, {"error", slog.LevelError}}
)

// word reads one of the words and returns what it stands for.
func word[T any](n yamlfile.Node, words []named[T]) T {
	var known []string
	for _, w := range words {
		known = append(known, w.word)
	}
	s := n.OneOf(known...)
	for _, w := range words {
		if w.word == s {
			return w.value
		}
	}
	return words[0].value
}
