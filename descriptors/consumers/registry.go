package consumers

import (
	"crypto/subtle"
	"encoding/binary"
	"hash/maphash"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// Registry answers for credentials from one immutable snapshot. All methods are
// safe for concurrent use. Nothing waits for a change: a decision takes the
// snapshot it finds.
//
// A consumer that has never called is only a record. Its limiters are made with
// its first request and then belong to its tokens: no cache evicts them, and
// every change to the consumer carries them over. See seat for what is done so
// that a million of them cost little.
type Registry struct {
	snap atomic.Pointer[snapshot]
	seed maphash.Seed // of consumer ids

	change sync.Mutex // serializes changes; taken before mu
	mu     sync.Mutex // guards what follows, and who may set the live parts of a snapshot

	options RegistryOptions
	warmUps uint64            // counts changes of the configured warm-up
	plans   map[string]string // their limits, as encodeLimits writes them
	seats   seats
	callers callers
	plains  sync.Map // of *limits.Spec to the *terms whose one limit it is; may be read by anybody
	terms   pool[*terms]
	labels  pool[map[string]string]
	memory  memory
	journal journal
	arrears arrears
	scratch []byte
}

// RegistryOptions are the defaults of consumers that name nothing.
type RegistryOptions struct {
	Default Limits        // of consumers without limits and plan; none: unlimited
	WarmUp  limits.WarmUp // of every rate that has none of its own
	Idle    time.Duration // how long a grace that was used is remembered; 0 means an hour

	// Share, if there is one, is called with each limiter that is made, before
	// anybody uses it, to give it a lease: limiters of one consumer belong
	// together, and key tells them apart. It is read by NewRegistry only.
	Share func(now limits.Time, consumer, key string, l *limits.Limiter)
}

func (o RegistryOptions) withDefaults() RegistryOptions {
	if o.Idle <= 0 {
		o.Idle = time.Hour
	}
	if o.WarmUp != (limits.WarmUp{}) {
		o.WarmUp.Idle = o.Idle
	}
	o.Default = slices.Clone(o.Default)
	return o
}

// snapshot is who is known. It is immutable but for the live parts of its
// entries: nil until first used, then set while holding Registry.mu.
type snapshot struct {
	tokens    index[tokenEntry]
	consumers index[consumerSlot]
	age       uint32 // another one, other plans, options or consumers: see arrears
}

type tokenEntry struct {
	hash   Hash
	owner  uint64        // the hash of its consumer's id
	seat   atomic.Uint32 // 0 until it was used
	record atomic.Uint32 // where its consumer's record may stand, see snapshot.whose
}

// consumerSlot is a consumer in the index.
type consumerSlot struct {
	record uint32        // where in the bucket's text it stands, see appendRecordOf
	caller atomic.Uint32 // 0 until it was used, and while all its tokens in use are plain
}

// consumerEntry is a consumer that was found there, or nobody.
type consumerEntry struct {
	record record
	slot   *consumerSlot
}

func (e consumerEntry) nobody() bool { return e.slot == nil }

func entryOf(slot *consumerSlot, text string) consumerEntry {
	_, rec := recordAt(text, slot.record)
	return consumerEntry{rec, slot}
}

// appendRecordOf appends to a bucket's text: the hash of a consumer's id, then
// the record behind its length.
func appendRecordOf(text []byte, owner uint64, rec []byte) []byte {
	return appendText(binary.BigEndian.AppendUint64(text, owner), rec)
}

// recordAt reads what appendRecordOf wrote.
func recordAt(text string, at uint32) (owner uint64, rec record) {
	owner, rest := cutUint64(text[at:])
	s, _ := cutText(rest)
	return owner, record(s)
}

// NewRegistry returns a registry that knows nobody.
func NewRegistry(o RegistryOptions) *Registry {
	r := &Registry{
		seed:    maphash.MakeSeed(),
		options: o.withDefaults(),
		terms:   newPool[*terms](),
		labels:  newPool[map[string]string](),
		memory:  memory{states: map[StateKey]SavedState{}, max: maxRemembered},
	}
	r.journal.seed = r.seed
	r.seats.resting, r.callers.resting = resting, resting
	r.arrears.atOnce = settledAtOnce
	r.snap.Store(&snapshot{})
	return r
}

// Resolve finds the grant of a credential as it stands in the request. Nothing
// is kept of a credential that nobody issued, and nothing is allocated but with
// the first request of a token. Of Unknown the grant is nobody's.
func (r *Registry) Resolve(now limits.Time, credential string) (Grant, Standing) {
	if !WellFormed(credential) {
		return Grant{}, Unknown
	}
	return r.ResolveHash(now, HashOf(credential))
}

// ResolveHash is [Registry.Resolve] for a credential that is hashed already.
func (r *Registry) ResolveHash(now limits.Time, h Hash) (Grant, Standing) {
	s := r.snap.Load()
	return r.resolve(now, s, s.token(&h))
}

func (r *Registry) resolve(now limits.Time, s *snapshot, e *tokenEntry) (Grant, Standing) {
	for e != nil {
		number := e.seat.Load()
		if number == 0 {
			s, e = r.activate(now, &e.hash)
			continue
		}
		seat := r.seats.at(number)
		state := seat.Note.Load()
		g := r.seats.grant(number)
		if g == nil && state&plainly == 0 || !aged(state, s.age) {
			// The token has gone, or is no longer plain, since s was read, or has
			// limiters from before a change.
			s, e = r.activate(now, &e.hash)
			continue
		}
		if g != nil {
			return r.answer(now, g)
		}
		v, t, ok := r.whose(s, e)
		if !ok {
			break
		}
		worth := standing(now, t.expires, v.disabled)
		if worth == Valid && state&(durablePlain|watched) == durablePlain {
			r.watch(number, v.id, t.id)
		}
		return Grant{Consumer: Caller{ID: v.id}, Token: t.id, only: seat}, worth
	}
	return Grant{}, Unknown
}

// Consumer finds the grant by a consumer's id. All calls by id share one set of
// limiters of their own, and those per consumer with its tokens.
func (r *Registry) Consumer(now limits.Time, id string) (Grant, Standing) {
	s := r.snap.Load()
	e := s.consumer(maphash.String(r.seed, id), id)
	if e.nobody() {
		return Grant{}, Unknown
	}
	if c := r.callerOf(e); c != nil && c.id == id { // else it was used again
		if g := c.byID.Load(); g != nil && aged(g.state.Load(), s.age) {
			return r.answer(now, g)
		}
	}
	g := r.activateID(now, id)
	if g == nil {
		return Grant{}, Unknown
	}
	return r.answer(now, g)
}

// Token finds the grant of a consumer's token by the token's id, for callers
// whose secret another has seen: ext_authz, which leaves only the ids behind.
func (r *Registry) Token(now limits.Time, consumer, token string) (Grant, Standing) {
	s, owner := r.snap.Load(), maphash.String(r.seed, consumer)
	e := s.consumer(owner, consumer)
	if e.nobody() {
		return Grant{}, Unknown
	}
	v := e.record.view()
	for t := range v.eachToken {
		if t.id == token {
			return r.resolve(now, s, s.owned(t.key, owner))
		}
	}
	return Grant{}, Unknown
}

// watch has the journal look at a plain token.
func (r *Registry) watch(number uint32, id, token string) {
	seat := r.seats.at(number)
	if t := r.termsOf(seat); t != nil {
		r.journal.watch(number, seat, t, id, token)
	}
}

func (r *Registry) answer(now limits.Time, g *grant) (Grant, Standing) {
	s := g.standing(now)
	if s == Valid && g.durable() && g.state.Load()&watched == 0 {
		r.journal.add(g)
	}
	return g.public(), s
}

// Len returns the number of consumers and of secrets that are known.
func (r *Registry) Len() (consumers, secrets int) {
	s := r.snap.Load()
	return s.consumers.n, s.tokens.n
}

// token finds a secret. The comparison takes the same time wherever the hashes
// differ; that only their first bits choose what is compared tells an attacker
// nothing he could use, since he cannot choose a hash's bits.
func (s *snapshot) token(h *Hash) *tokenEntry {
	run, _ := s.tokens.find(h.key())
	for i := range run {
		if subtle.ConstantTimeCompare(run[i].hash[:], h[:]) == 1 {
			return &run[i]
		}
	}
	return nil
}

// owned finds a secret of a consumer by the part of its hash that records hold.
func (s *snapshot) owned(key, owner uint64) *tokenEntry {
	run, _ := s.tokens.find(key)
	for i := range run {
		if run[i].owner == owner && run[i].hash.key() == key {
			return &run[i]
		}
	}
	return nil
}

func (s *snapshot) consumer(h uint64, id string) consumerEntry {
	run, text := s.consumers.find(h)
	for i := range run {
		if e := entryOf(&run[i], text); e.record.id() == id {
			return e
		}
	}
	return consumerEntry{}
}

// everyone calls f for every consumer until it returns false.
func (s *snapshot) everyone(f func(consumerEntry) bool) {
	s.consumers.all(func(slot *consumerSlot, text string) bool { return f(entryOf(slot, text)) })
}

// add puts a consumer into a snapshot that nobody else has yet.
func (s *snapshot) add(owner uint64, rec record) {
	s.consumers = s.consumers.edit(owner, 1, func(b *bucket[consumerSlot], key uint32) bucket[consumerSlot] {
		n := b.insert(key, consumerSlot{record: uint32(len(b.text))})
		n.text = string(appendRecordOf([]byte(b.text), owner, []byte(rec)))
		return n
	})
}

// leave takes a consumer out of a snapshot that nobody else has yet, and its
// record out of the text.
func (s *snapshot) leave(owner uint64, rec record) {
	s.consumers = s.consumers.edit(owner, -1, func(b *bucket[consumerSlot], key uint32) bucket[consumerSlot] {
		n := b.remove(key, func(o *consumerSlot) bool { return entryOf(o, b.text).record == rec })
		text := make([]byte, 0, len(b.text))
		for i := range n.vals {
			owner, kept := recordAt(b.text, n.vals[i].record)
			n.vals[i].record = uint32(len(text))
			text = appendRecordOf(text, owner, []byte(kept))
		}
		n.text = string(text)
		return n
	})
}

// Replace puts a whole set in force, or nothing of it: the error is a [Problems]
// with everything that is wrong. Limiters of tokens that remain are carried over,
// many of them when they are asked for next: see [Registry.Settle].
func (r *Registry) Replace(now limits.Time, s Set) error {
	if s.Plans == nil {
		s.Plans = map[string]Plan{}
	}
	return r.Load(now, s.Plans, func(yield func(Consumer, error) bool) {
		for _, c := range s.Consumers {
			if !yield(c, nil) {
				return
			}
		}
	})
}

// Load is [Registry.Replace] for a source that is too large to hold as a Set:
// consumers are read one by one. The first error of the sequence ends it. Where
// plans is nil, those in force stay.
func (r *Registry) Load(now limits.Time, plans map[string]Plan, all iter.Seq2[Consumer, error]) error {
	r.change.Lock()
	defer r.change.Unlock()
	v := newValidator()
	texts := r.plans // written under change only
	if plans != nil {
		texts = v.plans(plans)
	}
	next, err := r.build(v, texts, all) // without mu: first requests of tokens need it
	if err == nil {
		err = v.err()
	}
	if err != nil {
		return err
	}
	r.adopt(now, next, texts)
	return nil
}

// LoadGood is [Registry.Load] for a source in which single consumers may be bad:
// those are left out, and what is wrong with them is returned. Plans stay.
func (r *Registry) LoadGood(now limits.Time, all iter.Seq2[Consumer, error]) (Problems, error) {
	r.change.Lock()
	defer r.change.Unlock()
	v := newValidator()
	next, err := r.build(v, r.plans, all)
	if err != nil {
		return nil, err
	}
	for _, p := range v.found {
		next.drop(maphash.String(r.seed, p.Consumer), p.Consumer)
	}
	r.adopt(now, next, r.plans)
	return v.found, nil
}

// adopt puts a whole snapshot in force.
func (r *Registry) adopt(now limits.Time, next *snapshot, plans map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.arrears.before != nil { // there is room for one
		r.settleSome()
	}
	r.plans = plans
	r.arrears.replaced(r.snap.Load())
	r.putInForce(now, next)
}

// drop takes every consumer of an id, and their secrets, out of a snapshot that
// nobody else has yet.
func (s *snapshot) drop(owner uint64, id string) {
	for e := s.consumer(owner, id); !e.nobody(); e = s.consumer(owner, id) {
		for k := range keysOf(e.record) {
			for t := s.owned(k, owner); t != nil; t = s.owned(k, owner) {
				s.tokens = s.tokens.remove(k, func(o *tokenEntry) bool { return o == t })
			}
		}
		s.leave(owner, e.record)
	}
}

// SetPlans changes the plans of all consumers, in force with the next decision,
// or nothing: the error is a [Problems] with everything that is wrong, such as a
// plan that is gone while consumers have it.
func (r *Registry) SetPlans(now limits.Time, plans map[string]Plan) error {
	r.change.Lock()
	defer r.change.Unlock()
	v := newValidator()
	texts := v.plans(plans)
	s := r.snap.Load()
	if lacks(texts, r.plans) {
		s.everyone(func(e consumerEntry) bool {
			w := e.record.view()
			v.planOf(w.id, w.plan, texts)
			return len(v.found) < maxPlanProblems
		})
	}
	if err := v.err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if maps.Equal(texts, r.plans) {
		return nil
	}
	r.plans = texts
	r.changed(now)
	return nil
}

// lacks reports whether plans are gone.
func lacks(plans, before map[string]string) bool {
	for name := range before {
		if _, ok := plans[name]; !ok {
			return true
		}
	}
	return false
}

// maxPlanProblems bounds how many consumers of a plan that is gone are named.
const maxPlanProblems = 20

// Put adds a consumer or replaces the one of the same id. The next decision
// knows. The error is a [Problems].
func (r *Registry) Put(now limits.Time, c Consumer) error {
	r.change.Lock()
	defer r.change.Unlock()
	if err := r.Check(c); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.put(now, &c)
	return nil
}

func (r *Registry) put(now limits.Time, c *Consumer) {
	owner, rec := maphash.String(r.seed, c.ID), newRecord(c)
	r.settle(owner, c.ID)
	from := r.snap.Load()
	to := *from
	old := from.consumer(owner, c.ID)
	if !old.nobody() {
		to.leave(owner, old.record)
	}
	to.add(owner, rec)
	secrets := secretsOf(c)
	if !old.nobody() {
		for k := range keysOf(old.record) {
			e := from.owned(k, owner)
			if e != nil && !slices.Contains(secrets, e.hash) {
				to.tokens = to.tokens.remove(k, func(o *tokenEntry) bool { return o.hash == e.hash })
			}
		}
	}
	for _, h := range secrets {
		if to.token(&h) == nil {
			to.tokens = to.tokens.insert(h.key(), tokenEntry{hash: h, owner: owner})
		}
	}
	if !old.nobody() {
		r.rebuild(now, from, &to, old)
	}
	r.snap.Store(&to)
}

// Remove takes a consumer and its tokens away. The next decision knows.
// Removing who is not there does nothing.
func (r *Registry) Remove(now limits.Time, id string) {
	r.change.Lock()
	defer r.change.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	owner := maphash.String(r.seed, id)
	r.settle(owner, id)
	from := r.snap.Load()
	old := from.consumer(owner, id)
	if old.nobody() {
		return
	}
	to := *from
	to.leave(owner, old.record)
	for k := range keysOf(old.record) {
		if e := from.owned(k, owner); e != nil {
			to.tokens = to.tokens.remove(k, func(o *tokenEntry) bool { return o.hash == e.hash })
		}
	}
	r.rebuild(now, from, &to, old)
	r.snap.Store(&to)
}

// SetOptions changes the defaults, in force with the next decision.
func (r *Registry) SetOptions(now limits.Time, o RegistryOptions) {
	r.change.Lock()
	defer r.change.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	o = o.withDefaults()
	o.Share = r.options.Share
	if o.WarmUp == r.options.WarmUp && o.Idle == r.options.Idle && slices.Equal(o.Default, r.options.Default) && (o.Default == nil) == (r.options.Default == nil) {
		return // as with most reloads
	}
	if o.WarmUp != r.options.WarmUp {
		r.warmUps++
	}
	r.options = o
	r.changed(now)
}

// build makes a snapshot without live parts and tells the validator what is wrong
// in it. The error is that of the sequence.
func (r *Registry) build(v *validator, plans map[string]string, all iter.Seq2[Consumer, error]) (*snapshot, error) {
	var tokens builder[tokenEntry]
	var consumers builder[consumerSlot]
	var room []byte
	for c, err := range all {
		if err != nil {
			return nil, err
		}
		v.consumer(&c, plans)
		owner := maphash.String(r.seed, c.ID)
		room = appendRecord(room[:0], &c)
		in := consumers.in(owner)
		at := uint32(len(in.text))
		consumers.add(owner, consumerSlot{record: at})
		in.text = appendRecordOf(in.text, owner, room)
		for _, h := range secretsOf(&c) {
			tokens.add(h.key(), tokenEntry{hash: h, owner: owner})
			tokens.last(h.key()).record.Store(at)
		}
	}
	next := &snapshot{}
	next.consumers = consumers.finish(func(a, b *consumerSlot, text string) {
		if id := entryOf(a, text).record.id(); id == entryOf(b, text).record.id() {
			v.add(Problem{Consumer: id, Message: "the id is given twice"})
		}
	})
	next.tokens = tokens.finish(func(x, y *tokenEntry, _ string) {
		if x.hash == y.hash && x.owner != y.owner {
			a, b := r.ownerOf(next, x), r.ownerOf(next, y)
			v.add(Problem{Consumer: max(a, b), Message: "has a secret that " + min(a, b) + " has too: each token belongs to one consumer"})
		}
	})
	return next, nil
}

// ownerOf names the consumer that a secret belongs to.
func (r *Registry) ownerOf(s *snapshot, e *tokenEntry) string {
	_, v, _ := s.holder(e)
	return v.id
}

// whose finds what holder does, where it knows whose the secret is, without the
// index: an edit that moves records leaves it to the next request to note where
// the record stands. It begins with the hash that nobody else's has, so that what
// stands there instead cannot be taken for it.
func (r *Registry) whose(s *snapshot, e *tokenEntry) (view, tokenView, bool) {
	text, at := s.consumers.text(e.owner), e.record.Load()
	if int(at)+8 <= len(text) {
		if owner, _ := cutUint64(text[at:]); owner == e.owner {
			_, rec := recordAt(text, at)
			v := rec.view()
			if t, ok := v.token(e.hash.key()); ok {
				return v, t, true
			}
		}
	}
	c, v, t := s.holder(e)
	if c.nobody() {
		return v, t, false
	}
	if r.mu.TryLock() { // or a copy that is being made would read what is written
		e.record.Store(c.slot.record)
		r.mu.Unlock()
	}
	return v, t, true
}

// holder finds whose a secret is, present or previous.
func (s *snapshot) holder(e *tokenEntry) (consumerEntry, view, tokenView) {
	run, text := s.consumers.find(e.owner)
	for i := range run {
		c := entryOf(&run[i], text)
		v := c.record.view()
		if t, ok := v.token(e.hash.key()); ok {
			return c, v, t
		}
	}
	return consumerEntry{}, view{}, tokenView{}
}

// secretsOf returns every hash that a consumer answers to.
func secretsOf(c *Consumer) []Hash {
	hs := make([]Hash, 0, len(c.Tokens))
	for i := range c.Tokens {
		hs = append(hs, c.Tokens[i].Hash)
		if !c.Tokens[i].Previous.Zero() {
			hs = append(hs, c.Tokens[i].Previous)
		}
	}
	return hs
}

// keysOf yields the index keys of every secret in a record.
func keysOf(rec record) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		v := rec.view()
		for t := range v.eachToken {
			if !yield(t.key) || t.previousUntil != 0 && !yield(t.previous) {
				return
			}
		}
	}
}
