package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Learning is how Tollgate learns what upstreams answer.
type Learning string

// The ways to learn.
const (
	// ByProcessor uses Envoy's external processing filter: Tollgate knows a
	// refusal before the caller does, and sees bodies where signals need them.
	ByProcessor Learning = "ext_proc"
	// ByAccessLog uses Envoy's gRPC access log: a little later than the caller,
	// status and headers only, and nothing in the path of the answers.
	ByAccessLog Learning = "access_log"
)

// Learnings returns every way to learn.
func Learnings() []Learning { return []Learning{ByProcessor, ByAccessLog} }

// Egress is what the mode egress needs beside the rest. Upstream then is the
// one place that all calls go to; empty: wherever their Host header says.
type Egress struct {
	Upstreams []ThrottlingUpstream // those of Tollgate's configuration, as far as they are known
	Aliases   []Alias              // further names that callers may use
	Learn     Learning             // empty means ByProcessor

	CA        string // file with the authorities that upstreams are checked by, on Envoy's machine; empty means that of Debian and of Envoy's images
	Plaintext bool   // speak no TLS to upstreams
	Cert, Key string // files with the listener's own certificate, for callers who speak TLS; empty: none
}

// ThrottlingUpstream is what Envoy has to know of an upstream.
type ThrottlingUpstream struct {
	ID       string
	Hosts    []string // names, or *.SUFFIX
	Statuses []int    // of its signals
	Headers  []string // that its signals look at
	Bodies   bool     // a signal looks into bodies
}

// Alias is a name that stands for an upstream's host.
type Alias struct{ Name, Host string }

// systemCA is where Debian, Alpine and Envoy's images keep authorities.
const systemCA = "/etc/ssl/certs/ca-certificates.crt"

// learnWithin bounds how long an answer waits for Tollgate to have seen it.
const learnWithin = time.Second

func (e Egress) withDefaults() Egress {
	setDefault(&e.Learn, ByProcessor)
	setDefault(&e.CA, systemCA)
	return e
}

func (e Egress) check() error {
	var errs []error
	if !slices.Contains(Learnings(), e.Learn) {
		errs = append(errs, fmt.Errorf("learn %q: want one of %s", e.Learn, list(Learnings())))
	}
	for _, u := range e.Upstreams {
		if u.Bodies && e.Learn == ByAccessLog {
			errs = append(errs, fmt.Errorf("learn %s: signals of upstream %q look into bodies, which no access log holds: use %s", e.Learn, u.ID, ByProcessor))
		}
	}
	if (e.Cert == "") != (e.Key == "") {
		errs = append(errs, errors.New("listen: certificate and key go together"))
	}
	for _, a := range e.Aliases {
		if a.Name == "" || a.Host == "" {
			errs = append(errs, fmt.Errorf("alias %q: want NAME=HOST", a.Name+"="+a.Host))
		} else if e.UpstreamOf(a) == "" {
			errs = append(errs, fmt.Errorf("alias %s: no upstream of the configuration matches the host %q", a.Name, a.Host))
		}
	}
	return errors.Join(errs...)
}

// The methods below are what the templates ask.

// UpstreamOf returns the id of the upstream that an alias stands for, or "".
func (e Egress) UpstreamOf(a Alias) string {
	for _, u := range e.Upstreams {
		if slices.Contains(u.Hosts, a.Host) {
			return u.ID
		}
	}
	for _, u := range e.Upstreams {
		for _, host := range u.Hosts {
			if suffix, ok := strings.CutPrefix(host, "*"); ok && strings.HasSuffix(a.Host, suffix) && len(a.Host) > len(suffix) {
				return u.ID
			}
		}
	}
	return ""
}

// Statuses returns the statuses of all signals; empty: they are not known.
func (e Egress) Statuses() []int {
	var all []int
	for _, u := range e.Upstreams {
		all = append(all, u.Statuses...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Headers returns the response headers that the access log has to hold.
func (e Egress) Headers() []string {
	all := []string{"retry-after", "x-tollgate-reason"}
	for _, u := range e.Upstreams {
		for _, h := range u.Headers {
			all = append(all, strings.ToLower(h))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// LearnWithin returns how long an answer waits for Tollgate to have seen it.
func (Egress) LearnWithin() time.Duration { return learnWithin }
