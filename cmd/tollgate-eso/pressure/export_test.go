package pressure

import (
	"time"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/allowance"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
)

// Want is what a store's condition should be.
func Want(state *allowance.State, lost time.Duration, has *eso.Condition, now time.Time) *eso.Condition {
	s := sight{lost: lost}
	if state != nil {
		s.state, s.known = *state, true
	}
	return s.want(has, "keeper", now)
}
