package consumers

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tollgate-dev/tollgate/limits"
)

// maxID is the longest id of a consumer, token or plan.
const maxID = 128

// CheckID reports what is wrong with the id of a consumer, a token or a plan.
func CheckID(id string) error {
	switch {
	case id == "":
		return fmt.Errorf("an id is missing")
	case len(id) > maxID:
		return fmt.Errorf("id %q is %d characters long: want at most %d", id, len(id), maxID)
	}
	for _, c := range id {
		if c >= utf8.RuneSelf || !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._@-", c) {
			return fmt.Errorf("id %q: want only letters, digits and . _ @ -", id)
		}
	}
	return nil
}

// Problem is one thing that is wrong in a set.
type Problem struct {
	Plan     string // where it is: in a plan, or in a consumer and perhaps a token of it
	Consumer string
	Token    string
	Message  string
}

// Error says where and what.
func (p Problem) Error() string {
	switch {
	case p.Plan != "":
		return fmt.Sprintf("plan %q: %s", p.Plan, p.Message)
	case p.Token != "":
		return fmt.Sprintf("consumer %q: token %q: %s", p.Consumer, p.Token, p.Message)
	}
	return fmt.Sprintf("consumer %q: %s", p.Consumer, p.Message)
}

// Problems is everything that is wrong in a set; its text is a line for each.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Check reports what would keep [Registry.Put] from taking c, as [Problems].
func (r *Registry) Check(c Consumer) error {
	r.mu.Lock()
	plans := r.plans
	r.mu.Unlock()
	v := newValidator()
	v.consumer(&c, plans)
	s := r.snap.Load()
	for _, h := range secretsOf(&c) {
		e := s.token(&h)
		if e == nil {
			continue
		}
		if id := r.ownerOf(s, e); id != c.ID {
			v.add(Problem{Consumer: c.ID, Message: "has a secret that " + id + " has too: each token belongs to one consumer"})
		}
	}
	return v.err()
}

// validator collects what is wrong.
type validator struct {
	found  Problems
	limits map[Limit]error // limits are often alike
}

func newValidator() *validator {
	return &validator{limits: map[Limit]error{}}
}

func (v *validator) add(p Problem) {
	v.found = append(v.found, p)
}

func (v *validator) err() error {
	if len(v.found) == 0 {
		return nil
	}
	return v.found
}

// plans checks plans and returns their limits as text.
func (v *validator) plans(all map[string]Plan) map[string]string {
	texts := make(map[string]string, len(all))
	for name, p := range all {
		v.plan(name, p)
		texts[name] = encodeLimits(p.Limits)
	}
	return texts
}

func (v *validator) plan(name string, p Plan) {
	bad := func(message string) { v.add(Problem{Plan: name, Message: message}) }
	if err := CheckID(name); err != nil {
		bad(err.Error())
	}
	v.list(p.Limits, bad)
}

func (v *validator) consumer(c *Consumer, plans map[string]string) {
	bad := func(message string) { v.add(Problem{Consumer: c.ID, Message: message}) }
	if err := CheckID(c.ID); err != nil {
		bad(err.Error())
	}
	v.planOf(c.ID, c.Plan, plans)
	v.list(c.Limits, bad)
	v.tokens(c)
}

// planOf checks that a consumer's plan is there.
func (v *validator) planOf(id, plan string, plans map[string]string) {
	if _, known := plans[plan]; known || plan == "" {
		return
	}
	want := "no plans are configured: write them under `plans`"
	if len(plans) > 0 {
		want = "want one of " + strings.Join(slices.Sorted(maps.Keys(plans)), ", ")
	}
	v.add(Problem{Consumer: id, Message: fmt.Sprintf("unknown plan %q: %s", plan, want)})
}

func (v *validator) tokens(c *Consumer) {
	var ids map[string]bool
	var secrets map[Hash]bool
	if len(c.Tokens) > 0 {
		ids, secrets = make(map[string]bool, len(c.Tokens)), make(map[Hash]bool, len(c.Tokens))
	}
	for i := range c.Tokens {
		t := &c.Tokens[i]
		bad := func(message string) { v.add(Problem{Consumer: c.ID, Token: t.ID, Message: message}) }
		if err := CheckID(t.ID); err != nil {
			bad(err.Error())
		}
		if ids[t.ID] {
			bad("the token id is given twice")
		}
		ids[t.ID] = true
		if t.Hash.Zero() {
			bad("has no secret")
		}
		if !t.Previous.Zero() && t.PreviousUntil.IsZero() {
			bad("its previous secret has no end")
		}
		for _, h := range []Hash{t.Hash, t.Previous} {
			if !h.Zero() && secrets[h] {
				bad("its secret is given twice")
			}
			secrets[h] = true
		}
	}
}

// list checks limits and that their names differ.
func (v *validator) list(ls Limits, bad func(string)) {
	if len(ls) == 0 {
		return
	}
	if len(v.limits) > 10_000 {
		clear(v.limits)
	}
	for i, l := range ls {
		err, known := v.limits[l]
		if !known {
			_, err = l.compile(limits.WarmUp{})
			v.limits[l] = err
		}
		if err != nil {
			bad(fmt.Sprintf("limit %d: %v", i+1, err))
		}
	}
	for _, clash := range ls.Clashes() {
		bad(clash)
	}
}

// Clashes says which limits have the name of an earlier one: names are unique
// in a consumer. Limits that cannot be meant are left out.
func (ls Limits) Clashes() (messages []string) {
	if len(ls) < 2 {
		return nil
	}
	seen := map[string]int{}
	for i, l := range ls {
		s, err := l.compile(limits.WarmUp{})
		if err != nil {
			continue
		}
		name := s.Limit().Name
		if first, dup := seen[name]; dup {
			messages = append(messages, fmt.Sprintf("limits %d and %d are both named %s: give one of them another name", first+1, i+1, name))
			continue
		}
		seen[name] = i
	}
	return messages
}
