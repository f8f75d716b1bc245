package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/tollgate-dev/tollgate/internal/config"
)

// guard returns why a caller is not let in, or nil.
func (a *API) guard(r *http.Request) *Problem {
	if token := a.o.AdminToken(); token != (config.TokenHash{}) {
		if !shows(r, token) && !a.o.SignedIn(r) {
			return problemf(http.StatusUnauthorized, "want the admin token as Authorization: Bearer TOKEN")
		}
	} else if p := onlyHere(r); p != nil {
		return p
	}
	if r.ContentLength == 0 {
		return nil
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("content-type")); err != nil || kind != "application/json" {
		return problemf(http.StatusUnsupportedMediaType, "want a body of content-type application/json")
	}
	return nil
}

// shows reports whether a request holds the token. Hashes are compared, in the
// same time whatever was sent.
func shows(r *http.Request, want config.TokenHash) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("authorization"), " ")
	got := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1 && strings.EqualFold(scheme, "bearer")
}

// onlyHere refuses callers from elsewhere, and web pages of elsewhere that a
// browser on this machine has open: those bear their own Origin, or a Host that
// was made to resolve to this machine.
func onlyHere(r *http.Request) *Problem {
	if from, err := netip.ParseAddrPort(r.RemoteAddr); err != nil || !from.Addr().Unmap().IsLoopback() {
		return problemf(http.StatusForbidden, "without admin.token in the configuration, admin calls are answered on loopback only")
	}
	if !loopbackHost(r.Host) {
		return problemf(http.StatusForbidden, "host %q is not this machine's: without admin.token, use localhost or a loopback address", r.Host)
	}
	origin := r.Header.Get("origin")
	if origin == "" {
		return nil
	}
	if u, err := url.Parse(origin); err != nil || u.Host != r.Host {
		return problemf(http.StatusForbidden, "calls from pages of %q are refused", origin)
	}
	return nil
}

func loopbackHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	host = strings.Trim(host, "[]")
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}
