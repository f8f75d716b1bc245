package sqlstore_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/sqlstore"
	"github.com/tollgate-dev/tollgate/limits"
)

// slow is an empty source whose pages take a second.
type slow struct{}

func (slow) Open(context.Context) error                             { return nil }
func (slow) Changes(context.Context) (sqlstore.Changes, error)      { return sqlstore.Changes{}, nil }
func (slow) Settings(context.Context) (sqlstore.Settings, error)    { return nil, nil }
func (slow) Rows(context.Context, []string) ([]sqlstore.Row, error) { return nil, nil }
func (slow) Page(context.Context, string, int) ([]sqlstore.Row, string, error) {
	time.Sleep(time.Second)
	return nil, "", nil
}

// One who asks for a comparison while another one is under way gets its own.
func TestRefreshDuringAPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := sqlstore.NewFollower(slow{}, sqlstore.Options{
			Registry: consumers.NewRegistry(consumers.RegistryOptions{}), Clock: limits.NewClock(),
			Log: slog.New(slog.DiscardHandler), Poll: 24 * time.Hour, FullPass: 24 * time.Hour,
		})
		done := make(chan struct{})
		go func() {
			f.Run(ctx)
			close(done)
		}()
		if err := f.Started(ctx); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- f.Refresh(ctx) }()
		time.Sleep(500 * time.Millisecond)
		go func() { second <- f.Refresh(ctx) }()
		for _, answer := range []chan error{first, second} {
			if err := <-answer; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(begin); took != 2*time.Second {
			t.Errorf("two comparisons of a second each were in force after %v", took)
		}
		cancel()
		<-done
	})
}
