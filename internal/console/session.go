package console

import (
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"

	"github.com/tollgate-dev/tollgate/internal/config"
)

const (
	cookieName  = "tollgate_session"
	lifetime    = 12 * time.Hour
	maxSessions = 1000
)

// sessions are who has signed in. Ids are kept as hashes, as tokens are.
type sessions struct {
	mu   sync.Mutex // guards byID
	byID map[[sha256.Size]byte]session
}

type session struct {
	token   config.TokenHash // that was shown
	expires time.Time
}

func newSessions() *sessions {
	return &sessions{byID: map[[sha256.Size]byte]session{}}
}

// add begins a session and returns its id. Beyond maxSessions the oldest ends.
func (s *sessions) add(token config.TokenHash) (id string) {
	id = rand.Text() + rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var oldest [sha256.Size]byte
	for hash, have := range s.byID {
		if now.After(have.expires) {
			delete(s.byID, hash)
		} else if first, ok := s.byID[oldest]; !ok || have.expires.Before(first.expires) {
			oldest = hash
		}
	}
	if len(s.byID) >= maxSessions {
		delete(s.byID, oldest)
	}
	s.byID[sha256.Sum256([]byte(id))] = session{token: token, expires: now.Add(lifetime)}
	return id
}

// valid reports whether a request has the cookie of a session that was begun
// with the token that still counts.
func (s *sessions) valid(r *http.Request, token config.TokenHash) bool {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.byID[sha256.Sum256([]byte(c.Value))]
	return ok && have.token == token && time.Now().Before(have.expires)
}

func (s *sessions) remove(r *http.Request) {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, sha256.Sum256([]byte(c.Value)))
}

// cookie is one that no script reads and no other site sends.
func cookie(id string, secure bool) *http.Cookie {
	return &http.Cookie{Name: cookieName, Value: id, Path: "/", MaxAge: int(lifetime.Seconds()),
		HttpOnly: true, Secure: secure, SameSite: http.SameSiteStrictMode}
}
