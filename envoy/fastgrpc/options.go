package fastgrpc

import (
	"crypto/tls"
	"log/slog"
	"slices"
	"time"
)

// Options say what a Server serves and how much a client may ask of it. The
// zero value of every limit means its default.
type Options struct {
	// Methods are the unary methods by full name ("/package.Service/Method").
	// Every other call is answered UNIMPLEMENTED.
	Methods map[string]Handler

	// TLS, if set, is required of every connection. Certificates rotate
	// through its GetCertificate or GetConfigForClient.
	TLS *tls.Config

	// Log gets a line at Debug for every connection that ends for a reason
	// of its own. Nil discards them.
	Log *slog.Logger

	MaxConnections   int    // open at the same time; a further one is closed at once. Default 10,000
	MaxStreams       uint32 // open calls of one connection; a further one is refused. Default 8192
	MaxHeaderBytes   uint32 // of one call's header list, as RFC 9113 section 6.5.2 counts. Default 64 KiB
	MaxRequestBytes  int    // of one request message. Default 4 MiB, as grpc-go
	MaxBufferedBytes int    // of requests not yet complete, calls that wait and answers not yet sent, of one connection. Default 16 MiB
	MaxBufferedTotal int64  // of all connections, beyond 64 KiB that each has by itself. Default 256 MiB
	MaxWaiting       int    // calls that wait at the same time, over all connections. Default 4096

	HandshakeTimeout time.Duration // from accept to the client's SETTINGS. Default 10 s
	WriteTimeout     time.Duration // for the client to take what was written. Default 10 s
	StreamTimeout    time.Duration // for a request to become complete, and for an answer to be taken. Default 30 s

	KeepaliveTime    time.Duration // of silence before a PING. Default 1 min
	KeepaliveTimeout time.Duration // for its answer, or anything else, to come. Default 20 s

	// MaxConnectionAge is when a connection is drained so that clients spread
	// anew; each connection draws up to 10 % more or less. Default: never.
	MaxConnectionAge time.Duration
	// MaxConnectionAgeGrace is what the calls then open get to finish.
	// Default: without bound.
	MaxConnectionAgeGrace time.Duration
}

// Constants of the protocol's use, which no user needs to set.
const (
	readBuffer    = 32 << 10         // bytes read at once
	flushAt       = 64 << 10         // bytes to be written at which writing no longer waits for reading to pause
	keepCapacity  = 64 << 10         // a buffer that grew larger is left to the collector, as are finished streams beyond it
	maxFrame      = 16 << 10         // the protocol's initial SETTINGS_MAX_FRAME_SIZE, which is not raised
	streamWindow  = 64<<10 - 1       // the protocol's initial SETTINGS_INITIAL_WINDOW_SIZE, which is not raised
	connWindow    = 1 << 20          // the connection's receive window
	maxWindow     = 1<<31 - 1        // RFC 9113, section 6.9.1
	maxStreamID   = 1<<31 - 1        // RFC 9113, section 5.1.1
	drainTimeout  = 5 * time.Second  // for the answer to the PING between the two GOAWAYs
	lingerTimeout = 5 * time.Second  // for the client to read the rest and close, though it stands still for a while
	workerIdle    = 10 * time.Second // after which a waiting goroutine without work ends
)

func (o Options) withDefaults() Options {
	setDefault(&o.MaxConnections, 10_000)
	setDefault(&o.MaxStreams, 8192)
	setDefault(&o.MaxHeaderBytes, 64<<10)
	setDefault(&o.MaxRequestBytes, 4<<20)
	setDefault(&o.MaxBufferedBytes, 16<<20)
	setDefault(&o.MaxBufferedTotal, 256<<20)
	setDefault(&o.MaxWaiting, 4096)
	setDefault(&o.HandshakeTimeout, 10*time.Second)
	setDefault(&o.WriteTimeout, 10*time.Second)
	setDefault(&o.StreamTimeout, 30*time.Second)
	setDefault(&o.KeepaliveTime, time.Minute)
	setDefault(&o.KeepaliveTimeout, 20*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.TLS != nil {
		o.TLS = offerH2(o.TLS)
	}
	return o
}

// offerH2 is config with h2 among the protocols that it offers by ALPN, and
// the same for the configurations that it hands out.
func offerH2(config *tls.Config) *tls.Config {
	config = config.Clone()
	if !slices.Contains(config.NextProtos, "h2") {
		config.NextProtos = append(slices.Clone(config.NextProtos), "h2")
	}
	if choose := config.GetConfigForClient; choose != nil {
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := choose(hello)
			if chosen == nil || err != nil || slices.Contains(chosen.NextProtos, "h2") {
				return chosen, err
			}
			return offerH2(chosen), nil
		}
	}
	return config
}

func setDefault[T int | int64 | uint32 | time.Duration](value *T, fallback T) {
	if *value <= 0 {
		*value = fallback
	}
}
