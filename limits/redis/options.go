package redis

import (
	"crypto/tls"
	"errors"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// Mode is where decisions are taken.
type Mode string

// The modes.
const (
	Leased Mode = "leased" // locally, from tokens that were taken out of Redis before
	Strict Mode = "strict" // in Redis, each of them
)

// Options say which Redis, or Valkey, is shared and how.
type Options struct {
	Addresses      []string // HOST:PORT of a server, of nodes of a cluster, or of sentinels
	Username       string   // of an ACL user; empty: the default user
	Password       string
	SentinelMaster string      // the master's name; empty: Addresses are no sentinels
	TLS            *tls.Config // nil: plaintext
	Prefix         string      // of all keys; empty: "tollgate"

	Mode      Mode           // empty: Leased
	OnError   limits.OnError // of limits that do not say; empty: local
	Instances int            // how many there are until Redis has told; 0 means 1
	Timeout   time.Duration  // of one call to Redis; 0 means 100ms

	// Clock tells the time of decisions. It is required.
	Clock *limits.Clock
	// Changed, if there is one, is called when Redis is lost, with what went
	// wrong, and with nil when it is back: once per change.
	Changed func(error)
	// Corrupt, if there is one, is told of a value in Redis that cannot be meant,
	// at most once a minute.
	Corrupt func(key string, err error)

	// fake, in tests, is the time of every decision and of Redis itself.
	fake func() limits.Time
	// wire, in tests, comes between: it may make the calls by send or not, now or later.
	wire func(calls []call, send func() []answer) []answer
}

func (o Options) withDefaults() (Options, error) {
	if len(o.Addresses) == 0 {
		return o, errors.New("redis: no addresses: want at least one HOST:PORT")
	}
	if o.Prefix == "" {
		o.Prefix = "tollgate"
	}
	if o.Mode == "" {
		o.Mode = Leased
	}
	if o.OnError == "" {
		o.OnError = limits.OnErrorLocal
	}
	if o.Timeout <= 0 {
		o.Timeout = 100 * time.Millisecond
	}
	o.Instances = max(o.Instances, 1)
	return o, nil
}
