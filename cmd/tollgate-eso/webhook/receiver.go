package webhook

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// maxBody bounds a body. Keeper's events are below 2 KiB.
const maxBody = 256 << 10

// Digest tells events apart.
type Digest = [sha256.Size]byte

// Hook is one webhook.
type Hook struct {
	Name     string        // POST /webhooks/NAME
	Upstream string        // whose records its events are about
	Secret   Digest        // SHA-256 of the secret; zero: there is none
	SANs     []string      // client certificates, by DNS name or URI, that may send
	Replay   time.Duration // how far an event's time may be from now, and longer for how long it is known
	Rate     float64       // events a second
	Burst    int
	Adapter  Adapter
}

// Options of a receiver.
type Options struct {
	Hooks    []Hook
	Queue    *Queue
	Now      func() time.Time
	Log      *slog.Logger
	Registry prometheus.Registerer
}

// Receiver serves webhooks.
type Receiver struct {
	o        Options
	hooks    map[string]*hook
	outcomes *prometheus.CounterVec
}

// hook is a Hook with its rate limit.
type hook struct {
	Hook
	limit *rate.Limiter
}

// outcome is what became of a request, as counted.
type outcome string

const (
	accepted    outcome = "accepted"
	duplicate   outcome = "duplicate"
	ignored     outcome = "ignored"
	malformed   outcome = "malformed"
	forged      outcome = "forged"
	oversized   outcome = "oversized"
	replayed    outcome = "replayed"
	limited     outcome = "limited"
	unavailable outcome = "unavailable"
)

// outcomes returns all there are, for metrics that begin with 0.
func outcomes() []outcome {
	return []outcome{accepted, duplicate, ignored, malformed, forged, oversized, replayed, limited, unavailable}
}

// status is the answer.
func (o outcome) status() int {
	switch o {
	case malformed:
		return http.StatusBadRequest
	case forged:
		return http.StatusUnauthorized
	case oversized:
		return http.StatusRequestEntityTooLarge
	case replayed:
		return http.StatusForbidden
	case limited:
		return http.StatusTooManyRequests
	case unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusAccepted
}

// New returns a receiver.
func New(o Options) *Receiver {
	r := &Receiver{o: o, hooks: map[string]*hook{}, outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tollgate_eso_webhook_events_total", Help: "Requests to webhooks, by what became of them.",
	}, []string{"webhook", "outcome"})}
	o.Registry.MustRegister(r.outcomes)
	for _, h := range o.Hooks {
		r.hooks[h.Name] = &hook{Hook: h, limit: rate.NewLimiter(rate.Limit(h.Rate), h.Burst)}
		for _, out := range outcomes() {
			r.outcomes.WithLabelValues(h.Name, string(out))
		}
	}
	return r
}

// ServeHTTP implements http.Handler: POST /webhooks/NAME or, for senders that can
// set no header, POST /webhooks/NAME/SECRET.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	rest, ok := strings.CutPrefix(req.URL.Path, "/webhooks/")
	name, secret, _ := strings.Cut(rest, "/")
	h := r.hooks[name]
	if !ok || h == nil {
		http.NotFound(w, req)
		return
	}
	if req.Method != http.MethodPost {
		w.Header().Set("allow", http.MethodPost)
		http.Error(w, "want POST", http.StatusMethodNotAllowed)
		return
	}
	out, why := r.receive(h, secret, w, req)
	r.outcomes.WithLabelValues(h.Name, string(out)).Inc()
	switch out {
	case forged:
		w.Header().Set("www-authenticate", "Bearer")
	case limited, unavailable:
		w.Header().Set("retry-after", "5")
	}
	level := slog.LevelDebug
	if out.status() >= http.StatusBadRequest {
		level = slog.LevelWarn
	}
	r.o.Log.Log(req.Context(), level, "webhook", "webhook", h.Name, "outcome", string(out), "why", why, "from", req.RemoteAddr)
	http.Error(w, string(out), out.status()) // of the reason, only the log may tell
}

// receive decides about a request. The body of who may not send is not read.
func (r *Receiver) receive(h *hook, secret string, w http.ResponseWriter, req *http.Request) (outcome, string) {
	now := r.o.Now()
	if !h.allows(secret, req) {
		return forged, "neither its secret nor a client certificate that it knows"
	}
	if !h.limit.AllowN(now, 1) {
		return limited, "more than its rate"
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return oversized, err.Error()
	case err != nil:
		return malformed, err.Error()
	}
	e, err := h.Adapter.Read(body)
	if err != nil {
		return malformed, err.Error()
	}
	if !e.Time.IsZero() && e.Time.Sub(now).Abs() > h.Replay {
		return replayed, "its time is " + e.Time.UTC().Format(time.RFC3339)
	}
	if e.Effect == Ignore {
		return ignored, "event " + e.Name
	}
	// An event from the future is still within the window when its time has come
	// and gone: twice the window after now.
	fresh, err := r.o.Queue.Put(now, h.digest(e, body), 2*h.Replay, jobsOf(h.Upstream, e))
	switch {
	case err != nil:
		return unavailable, err.Error()
	case !fresh:
		return duplicate, "event " + e.Name
	}
	return accepted, "event " + e.Name
}

// allows compares in a time that says nothing about the secret.
func (h *hook) allows(inPath string, req *http.Request) bool {
	if req.TLS != nil && len(req.TLS.VerifiedChains) > 0 && h.knows(req.TLS.VerifiedChains[0][0]) {
		return true
	}
	sent := inPath
	if scheme, token, ok := strings.Cut(req.Header.Get("authorization"), " "); ok && strings.EqualFold(scheme, "bearer") {
		sent = strings.TrimSpace(token)
	}
	digest := sha256.Sum256([]byte(sent))
	return subtle.ConstantTimeCompare(digest[:], h.Secret[:]) == 1 && h.Secret != Digest{}
}

// knows reports whether a certificate that was verified may send.
func (h *hook) knows(cert *x509.Certificate) bool {
	for _, u := range cert.URIs {
		if slices.Contains(h.SANs, u.String()) {
			return true
		}
	}
	return slices.ContainsFunc(cert.DNSNames, func(n string) bool { return slices.Contains(h.SANs, n) })
}

// digest is an event's identity. A name before it keeps the ids of two hooks
// apart, and ids from bodies.
func (h *hook) digest(e Event, body []byte) Digest {
	kind, what := "body", bytes.TrimSpace(body)
	if e.ID != "" {
		kind, what = "id", []byte(e.ID)
	}
	return sha256.Sum256(slices.Concat([]byte(h.Name+"\x00"+kind+"\x00"), what))
}

func jobsOf(upstream string, e Event) []Job {
	if e.Effect == All {
		return []Job{{Upstream: upstream, Kind: Every}}
	}
	var jobs []Job
	for _, uid := range e.Records {
		jobs = append(jobs, Job{Upstream: upstream, Kind: ByUID, Name: uid})
	}
	for _, title := range e.Titles {
		jobs = append(jobs, Job{Upstream: upstream, Kind: ByTitle, Name: title})
	}
	return jobs
}
