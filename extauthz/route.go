package extauthz

import (
	"fmt"
	"strconv"
)

// AnswerStyle says whose clients the body of a refusal is written for.
type AnswerStyle int

// The answer styles.
const (
	AnswerProblem AnswerStyle = iota // application/problem+json, RFC 9457
	AnswerApollo                     // Spring Boot's error JSON, as Apollo's portal sends
	AnswerKeeper                     // what Keeper's SDKs take for throttling
)

// maxCost is the largest cost that Envoy hands on to a rate limit service; of
// a descriptor with a larger one it asks nothing at all.
const maxCost = 1_000_000_000

// route is what a route's context_extensions ask for.
type route struct {
	authenticate bool
	limit        bool
	domain       string
	cost         int64
	answer       AnswerStyle
	answered     bool   // the route names the style
	comesIn      bool   // it names a mode or a domain
	upstream     string // an upstream's id, * for that of the host, or empty
}

// route reads the context extensions; the error names the one that is wrong.
func (p *plan) route(v *View) (route, error) {
	r := route{authenticate: true, limit: true, domain: p.policy.Domain, cost: 1}
	for i := range v.Context {
		value := v.Context[i].Value
		var ok bool
		var want string
		switch v.Context[i].Name {
		case "mode":
			r.comesIn = true
			ok, want = r.setMode(value), "authenticate, limit or both"
		case "cost":
			ok, want = r.setCost(value), "a whole number from 0 to 1000000000"
		case "answer":
			r.answered = true
			ok, want = r.setAnswer(value), "problem, apollo or keeper"
		case "domain":
			r.comesIn = true
			r.domain, ok, want = value, value != "", "a name"
		case "upstream":
			r.upstream, ok, want = value, value != "", "an upstream's id, or * for that of the host"
		default:
			continue
		}
		if !ok {
			return route{}, fmt.Errorf("context extension %s: %q: want %s", v.Context[i].Name, value, want)
		}
	}
	return r, nil
}

func (r *route) setMode(s string) bool {
	r.authenticate, r.limit = s == "authenticate" || s == "both", s == "limit" || s == "both"
	return r.authenticate || r.limit
}

func (r *route) setCost(s string) bool {
	n, err := strconv.ParseUint(s, 10, 64)
	r.cost = int64(min(n, maxCost))
	return err == nil && n <= maxCost
}

func (r *route) setAnswer(s string) bool {
	switch s {
	case "problem":
		r.answer = AnswerProblem
	case "apollo":
		r.answer = AnswerApollo
	case "keeper":
		r.answer = AnswerKeeper
	default:
		return false
	}
	return true
}
