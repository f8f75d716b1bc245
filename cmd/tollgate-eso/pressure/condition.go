package pressure

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/allowance"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
)

// Throttled is the type of the condition.
const Throttled = "Throttled"

// Reasons of the condition.
const (
	ReasonPaused  = "UpstreamPaused"      // True
	ReasonOpen    = "UpstreamOpen"        // False
	ReasonUnknown = "TollgateUnreachable" // Unknown: the pause is over, but nobody can say whether another began
)

// sight is what is known of an upstream.
type sight struct {
	state allowance.State
	known bool
	lost  time.Duration // for how long Tollgate could not be asked
}

// patience is for how long Tollgate may be away before what was known counts as
// old: a restart is shorter.
const patience = time.Minute

// want returns the condition that a store should have; nil: what it has is good.
func (s sight) want(has *eso.Condition, upstream string, now time.Time) *eso.Condition {
	isTrue := has != nil && has.Status == metav1.ConditionTrue
	c := eso.Condition{Type: Throttled}
	switch {
	case s.lost > patience:
		if !isTrue || s.known && s.state.Until != nil && now.Before(*s.state.Until) {
			return nil
		}
		c.Status, c.Reason = metav1.ConditionUnknown, ReasonUnknown
		c.Message = fmt.Sprintf("whether %s is paused is not known: Tollgate cannot be reached", upstream)
	case !s.known:
		return nil
	case s.state.State == upstreams.Frozen && s.state.Until != nil:
		c.Status, c.Reason = metav1.ConditionTrue, ReasonPaused
		c.Message = fmt.Sprintf("%s answered %s; nothing is sent to it until %s (refusal %d in a row)",
			upstream, s.state.Reason, s.state.Until.UTC().Format(time.RFC3339), s.state.Violations)
	case s.state.Paused():
		return nil // one call finds out whether the pause is over
	case has == nil || has.Status == metav1.ConditionFalse:
		return nil
	default:
		c.Status, c.Reason = metav1.ConditionFalse, ReasonOpen
		c.Message = fmt.Sprintf("%s takes calls again", upstream)
	}
	if has != nil && has.Status == c.Status && has.Reason == c.Reason && has.Message == c.Message {
		return nil
	}
	c.LastTransitionTime = metav1.NewTime(now)
	if has != nil && has.Status == c.Status {
		c.LastTransitionTime = has.LastTransitionTime
	}
	return &c
}

// with returns conditions with one of them replaced or added, and all others as
// they are.
func with(all []eso.Condition, c eso.Condition) []eso.Condition {
	all = slices.Clone(all)
	if has := eso.FindCondition(all, c.Type); has != nil {
		*has = c
		return all
	}
	return append(all, c)
}
