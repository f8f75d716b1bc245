package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/redis"
)

// Cluster says how instances share limits. A change of it needs a restart.
type Cluster struct {
	Redis *Redis         // redis; nil: every instance counts for itself
	Mode  redis.Mode     // mode: leased or strict
	Error limits.OnError // on_error: local, allow or deny
	Size  int            // instances: how many there are, until the store has told
}

// Redis says where the store is.
type Redis struct {
	Addresses          []string  // addresses: HOST:PORT of a server, of cluster nodes, or of sentinels
	Username, Password string    // username, password: of an ACL user; empty: the default user without one
	SentinelMaster     string    // sentinel_master: the master's name; empty: addresses are no sentinels
	Prefix             string    // prefix: what every key begins with
	TLS                *RedisTLS // tls; nil: plaintext

	// Timeout is timeout: how long one call may take, at most 10s, before the
	// instance goes on without the store. 0: as in package redis.
	Timeout time.Duration
}

// RedisTLS are PEM files, read at the start.
type RedisTLS struct {
	CA         string // ca: who signed the server's certificate; empty: the system's
	Cert, Key  string // cert, key: ours; empty: none is shown
	ServerName string // server_name: of the certificate; empty: the host that is dialed
}

var redisPrefix = regexp.MustCompile(`^[A-Za-z0-9._:/-]{1,64}$`)

func (r *reader) cluster(n yamlfile.Node) {
	c := &r.c.Cluster
	n.Each(map[string]func(yamlfile.Node){
		"redis":     func(n yamlfile.Node) { c.Redis = r.redis(n) },
		"mode":      func(n yamlfile.Node) { c.Mode = redis.Mode(n.OneOf("leased", "strict")) },
		"on_error":  func(n yamlfile.Node) { c.Error = limits.OnError(n.OneOf("local", "allow", "deny")) },
		"instances": func(n yamlfile.Node) { c.Size = int(n.Int(1, 10_000)) },
	})
}

func (r *reader) redis(n yamlfile.Node) *Redis {
	if n.Null() {
		return nil
	}
	var c Redis
	n.Each(map[string]func(yamlfile.Node){
		"addresses": func(n yamlfile.Node) {
			c.Addresses = n.Strings()
			for _, a := range c.Addresses {
				if !isHostPort(a) {
					n.Errorf("want HOST:PORT: username and password are keys of their own") // what stands there may hold one
				}
			}
		},
		"username":        func(n yamlfile.Node) { c.Username = n.String() },
		"password":        func(n yamlfile.Node) { c.Password = n.String() },
		"sentinel_master": func(n yamlfile.Node) { c.SentinelMaster = n.String() },
		"prefix": func(n yamlfile.Node) {
			if c.Prefix = n.String(); !redisPrefix.MatchString(c.Prefix) {
				n.Errorf("prefix %q: want up to 64 letters, digits and . _ : / -", c.Prefix)
			}
		},
		"tls": func(n yamlfile.Node) { c.TLS = r.redisTLS(n) },
		"timeout": func(n yamlfile.Node) {
			if c.Timeout = positive(n); c.Timeout > 10*time.Second {
				n.Errorf("timeout %v: want at most 10s, since a request may wait for it", c.Timeout)
			}
		},
	})
	if len(c.Addresses) == 0 {
		n.Errorf("redis: want addresses, a list of HOST:PORT")
	}
	return &c
}

func (r *reader) redisTLS(n yamlfile.Node) *RedisTLS {
	var t RedisTLS
	n.Each(map[string]func(yamlfile.Node){
		"ca":          func(n yamlfile.Node) { t.CA = r.path(n) },
		"cert":        func(n yamlfile.Node) { t.Cert = r.path(n) },
		"key":         func(n yamlfile.Node) { t.Key = r.path(n) },
		"server_name": func(n yamlfile.Node) { t.ServerName = n.String() },
	})
	if (t.Cert == "") != (t.Key == "") {
		n.Errorf("tls: want both cert and key, or neither")
		return &t
	}
	if _, err := t.Config(); err != nil {
		n.Errorf("tls: %v", err)
	}
	return &t
}

// Config reads the files.
func (t *RedisTLS) Config() (*tls.Config, error) {
	c := &tls.Config{ServerName: t.ServerName, MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no certificate in it", t.CA)
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
