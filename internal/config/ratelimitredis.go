package config

import (
	"slices"
	"strings"
)

// redisVariables are those of a deployment whose replicas share their counters in
// Redis. They have their effect where REDIS_URL names a server that can be reached
// over TCP, and none otherwise.
var redisVariables = []string{
	"REDIS_SOCKET_TYPE", "REDIS_TYPE", "REDIS_AUTH", "REDIS_TLS", "REDIS_TLS_CLIENT_CERT", "REDIS_TLS_CLIENT_KEY", "REDIS_TLS_CACERT",
	"CACHE_KEY_PREFIX",
}

// redis reads where replicas meet. The keys there are Tollgate's own, so that both
// programs can use one server while one takes the other's place.
func (e environment) redis(c *Cluster) {
	url := e.text("REDIS_URL", "")
	if e.oneOf("BACKEND_TYPE", "redis", "memcache") != "redis" || url == "" || strings.HasPrefix(url, "/") {
		return
	}
	e.oneOf("REDIS_SOCKET_TYPE", "unix", "tcp")
	addresses := strings.Split(strings.ReplaceAll(url, " ", ""), ",")
	r := &Redis{Prefix: e.text("CACHE_KEY_PREFIX", "")}
	switch kind := e.oneOf("REDIS_TYPE", "single", "sentinel", "cluster"); {
	case kind == "sentinel" && len(addresses) < 2:
		e.wrong("REDIS_URL", "want MASTER,HOST:PORT,… of sentinels")
		return
	case kind == "sentinel":
		r.SentinelMaster, addresses = addresses[0], addresses[1:]
	case kind == "single" && len(addresses) > 1:
		e.wrong("REDIS_URL", "want one HOST:PORT, or REDIS_TYPE=cluster")
	}
	if r.Addresses = addresses; slices.ContainsFunc(addresses, func(a string) bool { return !isHostPort(a) }) {
		e.wrong("REDIS_URL", "want HOST:PORT, or for a unix socket a path that begins with /") // it may hold a password
	}
	if r.Password = e.text("REDIS_AUTH", ""); strings.Contains(r.Password, ":") {
		r.Username, r.Password, _ = strings.Cut(r.Password, ":")
	}
	if r.Prefix != "" && !redisPrefix.MatchString(r.Prefix) {
		e.wrong("CACHE_KEY_PREFIX", "%q: want up to 64 letters, digits and . _ : / -", r.Prefix)
	}
	if e.flag("REDIS_TLS", false) {
		r.TLS = e.redisTLS()
	}
	c.Redis = r
}

func (e environment) redisTLS() *RedisTLS {
	t := &RedisTLS{CA: e.text("REDIS_TLS_CACERT", ""), Cert: e.text("REDIS_TLS_CLIENT_CERT", ""), Key: e.text("REDIS_TLS_CLIENT_KEY", "")}
	if (t.Cert == "") != (t.Key == "") {
		e.wrong("REDIS_TLS_CLIENT_CERT", "want both REDIS_TLS_CLIENT_CERT and REDIS_TLS_CLIENT_KEY, or neither")
	} else if _, err := t.Config(); err != nil {
		e.wrong("REDIS_TLS", "%v", err)
	}
	return t
}
