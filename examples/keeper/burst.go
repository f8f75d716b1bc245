package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keeper-security/secrets-manager-go/core"

	"github.com/tollgate-dev/tollgate/envoy/envoytest/throttle"
)

// result is what a burst came to.
type result struct {
	reads     int           // wanted
	succeeded int           // got their secret
	refusals  int           // that the SDK returned
	other     error         // another error that it returned
	took      time.Duration // until the last secret, or until all was given up
	start     time.Time
	calls     []throttle.Call // that reached Keeper
}

func (r result) throttled() int {
	n := 0
	for _, c := range r.calls {
		if !c.Taken {
			n++
		}
	}
	return n
}

// burst reads n secrets at once, as an operator does that has lost all. A read
// that is refused is tried again as External Secrets does: after a second, then
// after twice as long each time (here in the fake's scale), until `until`.
func burst(c *client, n int, second, until time.Duration) result {
	r := result{reads: n, start: time.Now()}
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			for wait := second; ; wait *= 2 {
				err := c.read(fmt.Sprintf("record-%03d", i))
				mu.Lock()
				var refused *core.KeeperHTTPError
				switch {
				case err == nil:
					r.succeeded++
				case errors.As(err, &refused) && refused.ResultCode == "throttled":
					r.refusals++
				default:
					r.other = err
				}
				mu.Unlock()
				if err == nil || time.Since(r.start)+wait > until {
					return
				}
				<-time.After(wait)
			}
		})
	}
	all.Wait()
	r.took = time.Since(r.start)
	return r
}
