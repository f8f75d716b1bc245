package redis

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// The scripts, in parts of which each needs those before it.
var (
	//go:embed scripts/text.lua
	textLua string
	//go:embed scripts/kind.lua
	kindLua string
	//go:embed scripts/bucket.lua
	bucketLua string
	//go:embed scripts/counter.lua
	counterLua string
	//go:embed scripts/window.lua
	windowLua string
	//go:embed scripts/idle.lua
	idleLua string
	//go:embed scripts/value.lua
	valueLua string
	//go:embed scripts/open.lua
	openLua string

	//go:embed scripts/take.lua
	takeLua string
	//go:embed scripts/lease.lua
	leaseLua string
	//go:embed scripts/pressure.lua
	pressureLua string
	//go:embed scripts/beat.lua
	beatLua string
)

// script is what Redis runs.
type script struct{ body, sha string }

func newScript(parts ...string) script {
	body := strings.Join(parts, "\n")
	sum := sha1.Sum([]byte(body)) // the name that Redis gives it
	return script{body, hex.EncodeToString(sum[:])}
}

// scripts are all that is ever run.
type scripts struct{ take, lease, beat, pressure script }

func newScripts() scripts {
	limited := func(last string) script {
		return newScript(textLua, kindLua, bucketLua, counterLua, windowLua, idleLua, valueLua, openLua, last)
	}
	return scripts{take: limited(takeLua), lease: limited(leaseLua), beat: newScript(beatLua), pressure: newScript(pressureLua)}
}

// call is one run of a script on keys of one slot.
type call struct {
	script script
	keys   []string
	args   []string
}

// answer is what a script returned.
type answer struct {
	values []rueidis.RedisMessage
	err    error
}

// run makes all calls at once, pipelined, within the timeout.
func (c *Cluster) run(ctx context.Context, calls []call) []answer {
	if c.o.wire != nil {
		return c.o.wire(calls, func() []answer { return c.send(ctx, calls) })
	}
	return c.send(ctx, calls)
}

func (c *Cluster) send(ctx context.Context, calls []call) []answer {
	answers := make([]answer, len(calls))
	client := c.client.Load()
	if client == nil {
		for i := range answers {
			answers[i].err = errAbsent
		}
		return answers
	}
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	b := (*client).B()
	cmds := make(rueidis.Commands, len(calls))
	for i, k := range calls {
		cmds[i] = b.Evalsha().Sha1(k.script.sha).Numkeys(int64(len(k.keys))).Key(k.keys...).Arg(k.args...).Build()
	}
	c.stats.calls.Add(int64(len(calls)))
	for i, r := range (*client).DoMulti(ctx, cmds...) {
		if e, ok := rueidis.IsRedisErr(r.Error()); ok && e.IsNoScript() {
			k := calls[i]
			r = (*client).Do(ctx, b.Eval().Script(k.script.body).Numkeys(int64(len(k.keys))).Key(k.keys...).Arg(k.args...).Build())
		}
		answers[i].values, answers[i].err = r.ToArray()
	}
	return answers
}

var errAbsent = errors.New("not connected yet")

// isCorrupt reports whether the value of a key, not Redis, is at fault.
func isCorrupt(err error) bool {
	e, ok := rueidis.IsRedisErr(err)
	return ok && strings.Contains(e.Error(), "TGCORRUPT") || errors.Is(err, errAnswer)
}

// isLate reports whether a call was made too late to mean what it says.
func isLate(err error) bool {
	e, ok := rueidis.IsRedisErr(err)
	return ok && strings.Contains(e.Error(), "TGLATE")
}

// otherClock returns Redis' time if a script says that the periods it was given
// are not those of its clock.
func otherClock(err error) (string, bool) {
	if e, ok := rueidis.IsRedisErr(err); ok {
		if _, at, found := strings.Cut(e.Error(), "TGCLOCK "); found {
			return at, true
		}
	}
	return "", false
}

// connect makes a client.
func connect(o *Options) (rueidis.Client, error) {
	patience := max(time.Second, o.Timeout) // with a connection that says nothing: no less than with a call on it
	co := rueidis.ClientOption{
		InitAddress: o.Addresses, Username: o.Username, Password: o.Password, TLSConfig: o.TLS,
		ClientName: "tollgate", ClientSetInfo: rueidis.DisableClientSetInfo, DisableCache: true, DisableRetry: true, AlwaysPipelining: true,
		Dialer:           net.Dialer{Timeout: patience, KeepAlive: time.Second},
		ConnWriteTimeout: patience,
	}
	if o.SentinelMaster != "" {
		co.Sentinel = rueidis.SentinelOption{MasterSet: o.SentinelMaster, TLSConfig: o.TLS, Username: o.Username, Password: o.Password}
	}
	return rueidis.NewClient(co)
}
