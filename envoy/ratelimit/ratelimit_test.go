package ratelimit_test

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	rlcommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/envoy/ratelimit"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

// service is a rate limit service with all that it stands on.
type service struct {
	*ratelimit.Server
	options  ratelimit.Options
	registry *consumers.Registry
	clock    *limits.Clock
	events   []extauthz.Event
	messages bool // asked in messages, not in bytes
}

func (s *service) Observe(e *extauthz.Event) { s.events = append(s.events, *e) }

// start returns a service over rules. Call it in a synctest bubble to have its
// clock begin at midnight UTC, 2000-01-01, and stand still.
func start(t testing.TB, rules string, p ratelimit.Policy) *service {
	t.Helper()
	parsed, err := descriptors.Parse([]descriptors.File{{Name: "rules.yaml", Data: []byte(rules)}}, descriptors.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &service{clock: limits.NewClock(), registry: consumers.NewRegistry(consumers.RegistryOptions{})}
	book := descriptors.NewBook(limits.NewTable(limits.TableOptions{}))
	book.Swap(parsed)
	queue := limits.NewQueue(s.clock, limits.QueueOptions{})
	t.Cleanup(queue.Close)
	s.options = ratelimit.Options{Book: book, Registry: s.registry, Queue: queue, Clock: s.clock, Observer: s}
	s.Server = ratelimit.New(s.options, p)
	return s
}

// ShouldRateLimit asks in bytes, as Envoy does, unless the service is one for messages.
func (s *service) ShouldRateLimit(ctx context.Context, r *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	data, err := proto.Marshal(r)
	if s.messages || err != nil { // nobody can send that
		return s.Server.ShouldRateLimit(ctx, r)
	}
	return s.inBytes(ctx, data)
}

// inBytes asks with an encoded request. Nothing may refer to that afterwards.
func (s *service) inBytes(ctx context.Context, data []byte) (*rlsv3.RateLimitResponse, error) {
	given := bytes.Clone(data)
	out, err := s.ShouldRateLimitBytes(ctx, given, []byte("before"))
	for i := range given {
		given[i] = '#'
	}
	out, ok := bytes.CutPrefix(out, []byte("before"))
	if !ok || err != nil && len(out) > 0 {
		return nil, fmt.Errorf("ShouldRateLimitBytes(%x) = %x, %v: want an answer appended, or nothing with an error", data, out, err)
	}
	if err != nil {
		return nil, err
	}
	answer := new(rlsv3.RateLimitResponse)
	return answer, proto.Unmarshal(out, answer)
}

// ask sends a request written as "DOMAIN HITS DESCRIPTOR…", a descriptor being
// key=value,… with hits=N, limit=N/UNIT*MULTIPLIER after a slash, and returns
// the answer in one line.
func (s *service) ask(t testing.TB, text string) string {
	t.Helper()
	answer, err := s.ShouldRateLimit(context.Background(), request(t, text))
	if err != nil {
		return status.Code(err).String() + ": " + status.Convert(err).Message()
	}
	return line(answer)
}

func request(t testing.TB, text string) *rlsv3.RateLimitRequest {
	t.Helper()
	fields := strings.Fields(text)
	hits, err := strconv.ParseUint(fields[1], 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	r := &rlsv3.RateLimitRequest{Domain: fields[0], HitsAddend: uint32(hits)}
	for _, f := range fields[2:] {
		r.Descriptors = append(r.Descriptors, descriptor(t, f))
	}
	return r
}

func descriptor(t testing.TB, text string) *rlcommonv3.RateLimitDescriptor {
	t.Helper()
	d := &rlcommonv3.RateLimitDescriptor{}
	entries, options, _ := strings.Cut(text, "|")
	for _, e := range strings.Split(entries, ",") {
		key, value, _ := strings.Cut(e, "=")
		d.Entries = append(d.Entries, &rlcommonv3.RateLimitDescriptor_Entry{Key: key, Value: strings.ReplaceAll(value, "+", " ")})
	}
	for _, o := range strings.Split(options, "|") {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "hits":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if d.IsNegativeHits = n < 0; n < 0 {
				n = -n
			}
			d.HitsAddend = wrapperspb.UInt64(uint64(n))
		case "limit":
			d.Limit = override(t, value)
		}
	}
	return d
}

func override(t testing.TB, text string) *rlcommonv3.RateLimitDescriptor_RateLimitOverride {
	t.Helper()
	text, multiplier, multiplied := strings.Cut(text, "*")
	count, unit, _ := strings.Cut(text, "/")
	n, err := strconv.ParseUint(count, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	o := &rlcommonv3.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: uint32(n), Unit: typev3.RateLimitUnit(typev3.RateLimitUnit_value[unit])}
	if multiplied {
		m, err := strconv.ParseUint(multiplier, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		o.UnitMultiplier = wrapperspb.UInt32(uint32(m))
	}
	return o
}

// line writes an answer as OVERALL: STATUS; STATUS…
func line(r *rlsv3.RateLimitResponse) string {
	var parts []string
	for _, s := range r.GetStatuses() {
		text := s.GetCode().String()
		if s.GetLimitRemaining() > 0 {
			text += fmt.Sprintf(" left %d", s.GetLimitRemaining())
		}
		if l := s.GetCurrentLimit(); l != nil {
			text += fmt.Sprintf(" of %d/%s", l.GetRequestsPerUnit(), l.GetUnit())
			if m := l.GetUnitMultiplier(); m != nil {
				text += fmt.Sprintf("*%d", m.GetValue())
			}
			if l.GetName() != "" {
				text += " " + l.GetName()
			}
		}
		if d := s.GetDurationUntilReset(); d != nil {
			text += " reset " + d.AsDuration().String()
		}
		parts = append(parts, text)
	}
	return r.GetOverallCode().String() + ": " + strings.Join(parts, "; ")
}

const rules = `
domain: shop
descriptors:
- key: user
  rate_limit: {unit: minute, requests_per_unit: 3}
- key: user
  value: vip
  rate_limit: {unlimited: true}
- key: path
  rate_limit: {unit: hour, requests_per_unit: 10, name: by-path}
- key: tight
  rate_limit: {unit: hour, requests_per_unit: 1, name: tight, replaces: [{name: by-path}]}
- key: watched
  shadow_mode: true
  rate_limit: {unit: hour, requests_per_unit: 1}
- key: qa
  quota_mode: true
  rate_limit: {unit: hour, requests_per_unit: 1}
- key: qb
  quota_mode: true
  rate_limit: {unit: hour, requests_per_unit: 2}
- key: blocked
  rate_limit: {unit: day, requests_per_unit: 0}
- key: listed
`

// step is one request and its answer.
type step struct {
	wait time.Duration // before it
	ask  string
	want string
}

func TestShouldRateLimit(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy ratelimit.Policy
		steps  []step
	}{
		{"a window and the next", ratelimit.Policy{}, []step{
			{0, "shop 0 user=a", "OK: OK left 2 of 3/MINUTE reset 1m0s"},
			{20 * time.Second, "shop 2 user=a", "OK: OK of 3/MINUTE reset 40s"},
			{0, "shop 1 user=a", "OVER_LIMIT: OVER_LIMIT of 3/MINUTE reset 40s"},
			{0, "shop 1 user=b", "OK: OK left 2 of 3/MINUTE reset 40s"},
			{40 * time.Second, "shop 1 user=a", "OK: OK left 2 of 3/MINUTE reset 1m0s"},
		}},
		{"refused hits cost nothing", ratelimit.Policy{}, []step{
			{0, "shop 6 path=/", "OK: OK left 4 of 10/HOUR by-path reset 1h0m0s"},
			{0, "shop 6 path=/", "OVER_LIMIT: OVER_LIMIT of 10/HOUR by-path reset 1h0m0s"},
			{0, "shop 4 path=/", "OK: OK of 10/HOUR by-path reset 1h0m0s"},
		}},
		{"unless they are to be counted", ratelimit.Policy{CountRefused: true}, []step{
			{0, "shop 6 path=/", "OK: OK left 4 of 10/HOUR by-path reset 1h0m0s"},
			{0, "shop 6 path=/ user=a|hits=1", "OVER_LIMIT: OVER_LIMIT of 10/HOUR by-path reset 1h0m0s; OK left 2 of 3/MINUTE reset 1m0s"},
			{0, "shop 1 path=/", "OVER_LIMIT: OVER_LIMIT of 10/HOUR by-path reset 1h0m0s"},
		}},
		{"all descriptors together", ratelimit.Policy{}, []step{
			{0, "shop 1 user=a tight=x", "OK: OK left 2 of 3/MINUTE reset 1m0s; OK of 1/HOUR tight reset 1h0m0s"},
			{0, "shop 1 user=a tight=x", "OVER_LIMIT: OK left 2 of 3/MINUTE reset 1m0s; OVER_LIMIT of 1/HOUR tight reset 1h0m0s"},
			{0, "shop 1 user=a tight=x", "OVER_LIMIT: OK left 2 of 3/MINUTE reset 1m0s; OVER_LIMIT of 1/HOUR tight reset 1h0m0s"},
			{0, "shop 2 user=a", "OK: OK of 3/MINUTE reset 1m0s"},
		}},
		{"the same descriptor twice counts twice", ratelimit.Policy{}, []step{
			{0, "shop 2 user=a user=a", "OVER_LIMIT: OK left 3 of 3/MINUTE reset 1m0s; OVER_LIMIT of 3/MINUTE reset 1m0s"},
			{0, "shop 1 user=a user=a", "OK: OK left 2 of 3/MINUTE reset 1m0s; OK left 1 of 3/MINUTE reset 1m0s"},
		}},
		{"looks", ratelimit.Policy{}, []step{
			{0, "shop 0 user=a|hits=0", "OK: OK left 3 of 3/MINUTE reset 1m0s"},
			{0, "shop 0 user=a|hits=3", "OK: OK of 3/MINUTE reset 1m0s"},
			{0, "shop 0 user=a|hits=0", "OVER_LIMIT: OVER_LIMIT of 3/MINUTE reset 1m0s"},
			{0, "shop 1 user=a|hits=0 user=b", "OVER_LIMIT: OVER_LIMIT of 3/MINUTE reset 1m0s; OK left 3 of 3/MINUTE reset 1m0s"},
			{0, "shop 3 user=b", "OK: OK of 3/MINUTE reset 1m0s"},
		}},
		{"hits given back", ratelimit.Policy{}, []step{
			{0, "shop 3 user=a", "OK: OK of 3/MINUTE reset 1m0s"},
			{0, "shop 1 user=a|hits=-2", "OK: OK left 2 of 3/MINUTE reset 1m0s"},
			{0, "shop 1 user=a|hits=-9", "OK: OK left 3 of 3/MINUTE reset 1m0s"},
			{0, "shop 1 tight=x", "OK: OK of 1/HOUR tight reset 1h0m0s"},
			{0, "shop 3 user=a", "OK: OK of 3/MINUTE reset 1m0s"},
			// A refused request is as if it had not been: nothing is given back twice when it is tried again.
			{0, "shop 1 user=a|hits=-1 tight=x", "OVER_LIMIT: OK of 3/MINUTE reset 1m0s; OVER_LIMIT of 1/HOUR tight reset 1h0m0s"},
			{0, "shop 0 user=a|hits=0", "OVER_LIMIT: OVER_LIMIT of 3/MINUTE reset 1m0s"},
		}},
		{"own hits win over the request's", ratelimit.Policy{}, []step{
			{0, "shop 3 user=a|hits=1 user=b", "OK: OK left 2 of 3/MINUTE reset 1m0s; OK of 3/MINUTE reset 1m0s"},
		}},
		{"more than there can ever be", ratelimit.Policy{}, []step{
			{0, "shop 4 user=a", "OVER_LIMIT: OVER_LIMIT of 3/MINUTE reset 1m0s"},
			{0, "shop 0 blocked=x", "OVER_LIMIT: OVER_LIMIT of 0/DAY reset 24h0m0s"},
			{0, "shop 3 user=a", "OK: OK of 3/MINUTE reset 1m0s"},
		}},
		{"no limit", ratelimit.Policy{}, []step{
			{0, "shop 1 user=vip", "OK: OK left 4294967295"},
			{0, "shop 1 listed=x", "OK: OK"},
			{0, "shop 1 user=a,other=z", "OK: OK"},
			{0, "elsewhere 1 user=a", "OK: OK"},
		}},
		{"a limit that replaces another", ratelimit.Policy{}, []step{
			{0, "shop 1 path=/ tight=x", "OK: OK; OK of 1/HOUR tight reset 1h0m0s"},
			{0, "shop 9 path=/", "OK: OK left 1 of 10/HOUR by-path reset 1h0m0s"},
		}},
		{"a shadow never refuses and never shows", ratelimit.Policy{}, []step{
			{0, "shop 1 watched=x", "OK: OK"},
			{0, "shop 1 watched=x", "OK: OK"},
		}},
		{"quotas refuse together", ratelimit.Policy{}, []step{
			{0, "shop 1 qa=x qb=x", "OK: OK of 1/HOUR reset 1h0m0s; OK left 1 of 2/HOUR reset 1h0m0s"},
			{0, "shop 1 qa=x qb=x", "OK: OVER_LIMIT of 1/HOUR reset 1h0m0s; OK of 2/HOUR reset 1h0m0s"},
			{0, "shop 1 qa=x qb=x user=a", "OVER_LIMIT: OVER_LIMIT of 1/HOUR reset 1h0m0s; OVER_LIMIT of 2/HOUR reset 1h0m0s; OK left 3 of 3/MINUTE reset 1m0s"},
			{0, "shop 1 qa=y user=a", "OK: OK of 1/HOUR reset 1h0m0s; OK left 2 of 3/MINUTE reset 1m0s"},
		}},
		{"the global shadow mode tells what would have been", ratelimit.Policy{Mode: extauthz.Shadow}, []step{
			{0, "shop 1 tight=x", "OK: OK of 1/HOUR tight reset 1h0m0s"},
			{0, "shop 1 tight=x", "OK: OVER_LIMIT of 1/HOUR tight reset 1h0m0s"},
		}},
		{"off", ratelimit.Policy{Mode: extauthz.Off}, []step{
			{0, "shop 100 tight=x path=/", "OK: OK; OK"},
			{0, "shop 1", "InvalidArgument: descriptors: must not be empty"},
		}},
		{"overrides", ratelimit.Policy{}, []step{
			{0, "shop 1 user=a", "OK: OK left 2 of 3/MINUTE reset 1m0s"},
			{0, "shop 1 user=a|limit=42/MINUTE", "OK: OK left 40 of 42/MINUTE reset 1m0s"}, // one counter
			{0, "shop 1 user=a|limit=5/SECOND*30", "OK: OK left 4 of 5/SECOND*30 reset 30s"},
			{0, "elsewhere 1 user=a|limit=1/HOUR", "OK: OK"},
			{0, "shop 1 user=a|limit=5/UNKNOWN", "InvalidArgument: descriptors[0].limit.unit 0: want one of second, minute, hour, day, week, month, year"},
		}},
		{"what cannot be meant", ratelimit.Policy{}, []step{
			{0, "shop 1", "InvalidArgument: descriptors: must not be empty"},
			{0, "shop 1 =x", "InvalidArgument: descriptors[0].entries[0].key: must not be empty"},
			{0, "shop 1 user=a user=a|hits=9007199254740993", "InvalidArgument: descriptors[1].hits_addend: 9007199254740993, want at most 9007199254740992"},
			{0, "shop 0 user=a|hits=0", "OK: OK left 3 of 3/MINUTE reset 1m0s"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, inMessages := start(t, rules, c.policy), start(t, rules, c.policy)
				inMessages.messages = true
				for i, step := range c.steps {
					time.Sleep(step.wait) // fake: the bubble's clock moves at once
					if got := s.ask(t, step.ask); got != step.want {
						t.Errorf("step %d, %s:\n got %s\nwant %s", i, step.ask, got, step.want)
					}
					if got := inMessages.ask(t, step.ask); got != step.want {
						t.Errorf("step %d in messages, %s:\n got %s\nwant %s", i, step.ask, got, step.want)
					}
				}
			})
		})
	}
}

func TestCannotBeMeant(t *testing.T) {
	s := start(t, rules, ratelimit.Policy{})
	many := &rlsv3.RateLimitRequest{Domain: "shop"}
	for range 257 {
		many.Descriptors = append(many.Descriptors, descriptor(t, "user=a"))
	}
	for name, r := range map[string]*rlsv3.RateLimitRequest{
		"nil":        nil,
		"empty":      {},
		"no domain":  {Descriptors: []*rlcommonv3.RateLimitDescriptor{descriptor(t, "user=a")}},
		"no entries": {Domain: "shop", Descriptors: []*rlcommonv3.RateLimitDescriptor{{}}},
		"nil inside": {Domain: "shop", Descriptors: []*rlcommonv3.RateLimitDescriptor{nil}},
		"nil entry":  {Domain: "shop", Descriptors: []*rlcommonv3.RateLimitDescriptor{{Entries: []*rlcommonv3.RateLimitDescriptor_Entry{nil}}}},
		"too many":   many,
	} {
		if got, err := s.ShouldRateLimit(t.Context(), r); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, %v, want INVALID_ARGUMENT", name, got, err)
		}
	}
}

func TestUnknownDomainsAreCounted(t *testing.T) {
	s := start(t, rules, ratelimit.Policy{})
	s.ask(t, "shop 1 user=a")
	s.ask(t, "elsewhere 1 user=a")
	if got := s.UnknownDomains(); got != 1 {
		t.Errorf("UnknownDomains = %d, want 1", got)
	}
	if got := s.events[1].Domain; got != "" {
		t.Errorf("the event names domain %q, which a caller chose", got)
	}
}

func TestCallersOwnLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, rules, ratelimit.Policy{})
		own := consumers.Limits{{Limit: limits.Limit{Kind: limits.FixedWindow, N: 2, Period: time.Hour, Name: "own"}}}
		put := func(id string, tokens ...string) {
			c := consumers.Consumer{ID: id, Limits: own}
			for _, token := range tokens {
				c.Tokens = append(c.Tokens, consumers.Token{ID: token, Hash: consumers.HashOf(id + "-" + token)})
			}
			if err := s.registry.Put(s.clock.Now(), c); err != nil {
				t.Fatal(err)
			}
		}
		put("billing", "prod", "test")
		put("off", "prod")
		for _, step := range []struct{ ask, want string }{
			// One token, whichever way it is named, has one set of buckets.
			{"any 1 token=billing-prod", "OK: OK left 1 of 2/HOUR own reset 1h0m0s"},
			{"any 1 token=bearer+billing-prod", "OK: OK of 2/HOUR own reset 1h0m0s"},
			{"any 1 consumer=billing,token=prod", "OVER_LIMIT: OVER_LIMIT of 2/HOUR own reset 1h0m0s"},
			// Others have others.
			{"any 1 consumer=billing,token=test", "OK: OK left 1 of 2/HOUR own reset 1h0m0s"},
			{"any 1 consumer=billing", "OK: OK left 1 of 2/HOUR own reset 1h0m0s"},
			{"any 1 consumer=billing,token=__none__", "OK: OK of 2/HOUR own reset 1h0m0s"},
			// Nobody has none.
			{"any 1 token=nobody", "OK: OK"},
			{"any 1 consumer=nobody,token=prod", "OK: OK"},
			// A request takes from a caller once, however often it is named.
			{"any 1 consumer=off,token=prod consumer=off consumer=off,method=GET", "OK: OK left 1 of 2/HOUR own reset 1h0m0s; OK; OK"},
			{"any 1 consumer=off consumer=off,token=prod", "OK: OK; OK of 2/HOUR own reset 1h0m0s"},
			{"any 1 consumer=off", "OK: OK left 1 of 2/HOUR own reset 1h0m0s"},
			// Rules go along.
			{"shop 1 consumer=billing,token=test user=a", "OK: OK of 2/HOUR own reset 1h0m0s; OK left 2 of 3/MINUTE reset 1m0s"},
			{"shop 1 consumer=billing,token=test user=a", "OVER_LIMIT: OVER_LIMIT of 2/HOUR own reset 1h0m0s; OK left 2 of 3/MINUTE reset 1m0s"},
		} {
			if got := s.ask(t, step.ask); got != step.want {
				t.Errorf("%s:\n got %s\nwant %s", step.ask, got, step.want)
			}
		}
		if s.UnknownDomains() != 2 {
			t.Errorf("UnknownDomains = %d, want 2: known callers need no rules", s.UnknownDomains())
		}
	})
}

func TestHeldForItsTurn(t *testing.T) {
	const held = `
domain: shop
descriptors:
- key: user
  rate_limit: {unit: second, requests_per_unit: 1, algorithm: pace, max_wait: 2s}
`
	synctest.Test(t, func(t *testing.T) {
		s := start(t, held, ratelimit.Policy{})
		s.ask(t, "shop 1 user=a")
		began := time.Now()
		if got := s.ask(t, "shop 1 user=a"); !strings.HasPrefix(got, "OK") || time.Since(began) != time.Second {
			t.Errorf("%s after %v, want OK after 1s", got, time.Since(began))
		}
		if e := s.events[1]; e.Wait != time.Second || e.Outcome != extauthz.Admitted {
			t.Errorf("event %+v, want a wait of 1s", e)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		answer, err := s.ShouldRateLimit(ctx, request(t, "shop 1 user=a"))
		if err != nil || answer.GetOverallCode() != rlsv3.RateLimitResponse_OVER_LIMIT || time.Since(began) != time.Second {
			t.Errorf("a turn beyond the deadline: %v, %v after %v, want OVER_LIMIT at once", answer, err, time.Since(began)-time.Second)
		}
	})
}

// A call that was stopped between the clock and its limit, as the container was,
// is not refused for others having asked since.
func TestAStoppedCallIsDecidedOnceMore(t *testing.T) {
	const ofTen = `
domain: shop
descriptors:
- key: user
  rate_limit: {unit: second, requests_per_unit: 10, algorithm: rate}
`
	for name, messages := range map[string]bool{"messages": true, "bytes": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const stopped = 1500 * time.Millisecond
				s := start(t, ofTen, ratelimit.Policy{})
				s.messages = messages
				// The limiter of a consumer is made between the clock and the limits.
				meanwhile := func() {
					time.Sleep(stopped)
					s.ask(t, "shop 1 user=a")
				}
				s.options.Registry = consumers.NewRegistry(consumers.RegistryOptions{
					Share: func(limits.Time, string, string, *limits.Limiter) { meanwhile() },
				})
				s.Server = ratelimit.New(s.options, ratelimit.Policy{})
				c := consumers.Consumer{ID: "billing", Limits: consumers.Limits{{Limit: limits.Limit{Kind: limits.Rate, N: 1000, Period: time.Second}}}}
				if err := s.options.Registry.Put(s.clock.Now(), c); err != nil {
					t.Fatal(err)
				}
				if got := s.ask(t, "shop 1 user=a consumer=billing"); !strings.HasPrefix(got, "OK") {
					t.Errorf("%s, want OK", got)
				}
				if got := s.events[1].Took; got != stopped {
					t.Errorf("took %v, want %v", got, stopped)
				}
				for range 8 { // that was the second of ten
					s.ask(t, "shop 1 user=a")
				}
				if got := s.ask(t, "shop 1 user=a"); !strings.HasPrefix(got, "OVER_LIMIT") {
					t.Errorf("the eleventh request: %s, want OVER_LIMIT", got)
				}
			})
		})
	}
}

func TestHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			name    string
			policy  ratelimit.Policy
			ok      map[string]string
			refused map[string]string
		}{
			{"ietf", ratelimit.Policy{Headers: extauthz.HeadersIETF},
				map[string]string{"ratelimit-policy": `"by-path";q=10;w=3600`, "ratelimit": `"by-path";r=0;t=3600`},
				map[string]string{"ratelimit-policy": `"by-path";q=10;w=3600`, "ratelimit": `"by-path";r=0;t=3600`,
					"x-tollgate-reason": "rate-limited", "content-type": "application/problem+json", "retry-after": "*"}},
			{"draft03", ratelimit.Policy{Headers: extauthz.HeadersDraft03},
				map[string]string{"x-ratelimit-limit": `10, 10;w=3600;name="by-path"`, "x-ratelimit-remaining": "0", "x-ratelimit-reset": "3600"},
				map[string]string{"x-ratelimit-limit": `10, 10;w=3600;name="by-path"`, "x-ratelimit-remaining": "0", "x-ratelimit-reset": "3600",
					"x-tollgate-reason": "rate-limited", "content-type": "application/problem+json", "retry-after": "*"}},
			{"none", ratelimit.Policy{Headers: extauthz.HeadersNone}, map[string]string{},
				map[string]string{"x-tollgate-reason": "rate-limited", "content-type": "application/problem+json", "retry-after": "*"}},
			{"plain", ratelimit.Policy{Plain: &ratelimit.PlainHeaders{Limit: "RateLimit-Limit", Remaining: "Left", Reset: "RateLimit-Reset"}},
				map[string]string{"RateLimit-Limit": "10", "Left": "0", "RateLimit-Reset": "3600"},
				map[string]string{"RateLimit-Limit": "10", "Left": "0", "RateLimit-Reset": "3600"}},
		} {
			s := start(t, rules, c.policy)
			for i, want := range []map[string]string{c.ok, c.refused} {
				r, err := s.ShouldRateLimit(t.Context(), request(t, "shop 10 path=/ watched=x"))
				if err != nil {
					t.Fatal(err)
				}
				got := make(map[string]string)
				for _, h := range r.GetResponseHeadersToAdd() {
					got[h.GetKey()] = h.GetValue()
				}
				if after, err := strconv.Atoi(got["retry-after"]); err == nil && after >= 3600 && after <= 3660 {
					got["retry-after"] = "*"
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s, request %d (-want +got):\n%s", c.name, i, diff)
				}
				if body := len(r.GetRawBody()) > 0; body != (i == 1 && c.policy.Plain == nil) {
					t.Errorf("%s, request %d: body %q", c.name, i, r.GetRawBody())
				}
			}
		}
	})
}

func TestMetadata(t *testing.T) {
	const withMetadata = `
domain: shop
descriptors:
- key: user
  rate_limit: {unit: hour, requests_per_unit: 1}
  metadata: {tier: gold, nested: {a: 1}}
- key: path
  rate_limit: {unit: hour, requests_per_unit: 9}
  metadata: {tier: silver, nested: {b: 2}}
`
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			policy      ratelimit.Policy
			first, then string
		}{
			{ratelimit.Policy{}, "<nil>", "<nil>"},
			{ratelimit.Policy{Metadata: true}, "map[metadata:map[nested:map[a:1 b:2] tier:gold]]", "map[metadata:map[nested:map[b:2] tier:silver]]"},
		} {
			s := start(t, withMetadata, c.policy)
			for _, want := range []string{c.first, c.then} {
				r, err := s.ShouldRateLimit(t.Context(), request(t, "shop 1 user=a path=/"))
				if err != nil {
					t.Fatal(err)
				}
				got := "<nil>"
				if m := r.GetDynamicMetadata(); m != nil {
					got = fmt.Sprint(m.AsMap())
				}
				if got != want {
					t.Errorf("metadata %s, want %s", got, want)
				}
			}
		}
	})
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, rules, ratelimit.Policy{})
		s.ask(t, "shop 1 user=a tight=x")
		s.ask(t, "shop 1 user=a tight=x")
		s.ask(t, "shop 1 watched=x")
		s.ask(t, "shop 1 watched=x")
		type told struct {
			API     string
			Outcome extauthz.Outcome
			Domain  string
			Rule    string
			Limit   int64
			Wait    time.Duration
		}
		var got []told
		for _, e := range s.events {
			n := int64(-1)
			if e.Limit != nil {
				n = e.Limit.Limit().N
			}
			got = append(got, told{e.API, e.Outcome, e.Domain, e.Rule, n, e.Decision.Wait})
		}
		want := []told{
			{"ratelimit", extauthz.Admitted, "shop", "user", -1, 0},
			{"ratelimit", extauthz.Throttled, "shop", "tight", 1, time.Hour},
			{"ratelimit", extauthz.Admitted, "shop", "watched", -1, 0},
			{"ratelimit", extauthz.Shadowed, "shop", "watched", 1, time.Hour},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}
