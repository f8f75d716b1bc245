package upstreams

import (
	"strings"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/pressure"
)

// Config is one upstream, as configured. It is immutable.
type Config struct {
	ID       string
	Hosts    []string // in lower case, without port; *.example.com stands for all below example.com
	Limits   []Limit
	Signals  []Signal // which answers ask for a pause
	Pressure pressure.Policy
	Budget   *Budget // nil: calls are counted, and never stopped for their number
	Caller   Source  // who is treated as one caller when turns are taken
	Queue    int     // how many may be held; 0 means 1000
	Answer   Answering
}

// Limit is a limit of an upstream with its margin: the part of it that is left
// unused because the upstream counts at a clock of its own.
type Limit struct {
	limits.Limit
	Margin float64 // from 0 to below 1
}

// Signal is a kind of answer that asks for a pause. All that is set must fit.
type Signal struct {
	Status int
	Header string // the name of a header that is there, in lower case; empty: any
	Body   string // what stands in the beginning of the body; empty: anything
}

// Source says where a property of a request is found: From and Name are as in
// extauthz.Source. The zero Source is where nothing is found.
type Source struct{ From, Name string }

// Answering is how refusals by Tollgate look.
type Answering struct {
	Style  string // problem, apollo or keeper; empty: as the route says, else problem
	Status int    // 0: 429
}

// defaultQueue is how many requests an upstream's queue holds.
const defaultQueue = 1000

func (c *Config) queue() int {
	if c.Queue > 0 {
		return c.Queue
	}
	return defaultQueue
}

// Longest returns the longest time that one of the limits lets a request wait.
func (c *Config) Longest() time.Duration {
	var longest time.Duration
	for _, l := range c.Limits {
		longest = max(longest, l.MaxWait)
	}
	return longest
}

// match returns how well a host fits, 0 if it does not.
func (c *Config) match(host string) int {
	best := 0
	for _, h := range c.Hosts {
		suffix, wild := strings.CutPrefix(h, "*")
		switch {
		case !wild && h == host:
			return 1 << 20
		case wild && len(host) > len(suffix) && strings.HasSuffix(host, suffix):
			best = max(best, len(h))
		}
	}
	return best
}

// Budget is how many calls may be made in periods of the calendar.
type Budget struct {
	Periods   []Period
	Location  *time.Location // whose midnight; nil means UTC
	Alerts    []float64      // parts of a budget whose use is told, ascending, above 0
	Soft      bool           // tell, and stop nobody
	Class     Source         // where a request says how important it is
	Classes   []Class        // the most important first; a request of none counts as of the last
	Attribute Source         // to whom a call is put down
	Price     float64        // of a call, in whatever currency; 0: unknown
}

// Period is a budget of calls in one period.
type Period struct {
	Calls    int64
	Calendar limits.Calendar
}

// Class is a kind of calls. Its reserve is the part of each budget, from 0 to
// 1, that only it and those before it may use.
type Class struct {
	Name    string
	Reserve float64
}
