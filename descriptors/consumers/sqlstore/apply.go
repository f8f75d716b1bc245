package sqlstore

import (
	"errors"
	"log/slog"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/limits"
)

// maxBad bounds how many unusable consumers are remembered one by one.
const maxBad = 10_000

// applier puts what was read in force. What cannot be meant leaves what is in
// force as it is, and is told once.
type applier struct {
	registry *consumers.Registry
	clock    *limits.Clock
	log      *slog.Logger

	bad map[string]string // consumers, and what is wrong with them
}

func newApplier(o Options) applier {
	return applier{registry: o.Registry, clock: o.Clock, log: o.Log, bad: map[string]string{}}
}

// rows puts consumers in force, and takes those that were asked for and are not
// among them away.
func (a *applier) rows(rows []Row, asked []string) {
	if len(asked) > 0 {
		there := make(map[string]struct{}, len(rows))
		for i := range rows {
			there[rows[i].Consumer.ID] = struct{}{}
		}
		for _, id := range asked {
			if _, ok := there[id]; !ok {
				a.registry.Remove(a.clock.Now(), id)
				delete(a.bad, id)
			}
		}
	}
	// A secret may move from one consumer to another that comes first here:
	// those that are refused are tried again as long as that helps.
	for left := rows; len(left) > 0; {
		var refused []Row
		for _, row := range left {
			if row.Err == nil && !a.registry.Stands(&row.Consumer) {
				row.Err = a.registry.Put(a.clock.Now(), row.Consumer)
			}
			if row.Err != nil {
				refused = append(refused, row)
				continue
			}
			a.usable(row.Consumer.ID)
		}
		if len(refused) == len(left) {
			a.refuseAll(refused)
			return
		}
		left = refused
		for i := range left {
			var ps consumers.Problems
			if errors.As(left[i].Err, &ps) {
				left[i].Err = nil // of the registry, not of the row
			}
		}
	}
}

func (a *applier) refuseAll(rows []Row) {
	for i := range rows {
		id := rows[i].Consumer.ID
		var ps consumers.Problems
		if !errors.As(rows[i].Err, &ps) {
			ps = consumers.Problems{{Consumer: id, Message: rows[i].Err.Error()}}
		}
		a.refuse(consumers.Problem{Consumer: id, Token: ps[0].Token, Message: ps[0].Message})
	}
}

// refuse notes that a consumer cannot be used.
func (a *applier) refuse(p consumers.Problem) {
	text := p.Error()
	if a.bad[p.Consumer] == text || len(a.bad) >= maxBad {
		return
	}
	a.bad[p.Consumer] = text
	a.log.Warn("consumer cannot be used as it stands in the database, going on with what was in force", "consumer", p.Consumer, "problem", text)
}

func (a *applier) usable(id string) {
	if _, was := a.bad[id]; was {
		delete(a.bad, id)
		a.log.Info("consumer can be used again", "consumer", id)
	}
}
