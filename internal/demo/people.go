package demo

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
)

// person is a sample consumer. One of its tokens is for the demo's own traffic
// and one for whoever watches; each has its own bucket.
type person struct {
	id     string
	limit  string
	sends  time.Duration // a request every so often
	theirs string        // token of the traffic
	yours  string        // token to paste
}

// people returns the samples: one within its limit, one at twice, one at five
// times of it.
func people() []person {
	return []person{
		{id: "alice", limit: "20/s", sends: 125 * time.Millisecond},
		{id: "bob", limit: "5/s", sends: 100 * time.Millisecond},
		{id: "carol", limit: "1/s", sends: 200 * time.Millisecond},
	}
}

func (d *demo) addPeople(ctx context.Context) error {
	d.people = people()
	store := d.server.Store()
	for i := range d.people {
		p := &d.people[i]
		limit, err := consumers.ParseLimit(p.limit)
		if err != nil {
			return err
		}
		if _, err := store.Put(ctx, consumers.Consumer{ID: p.id, Limits: consumers.Limits{*limit}}, consumers.IfAbsent); err != nil {
			return err
		}
		for id, secret := range map[string]*string{"traffic": &p.theirs, "yours": &p.yours} {
			*secret = consumers.NewToken()
			t := consumers.Token{ID: id, Hash: consumers.HashOf(*secret), Created: time.Now()}
			if err := store.IssueToken(ctx, p.id, t); err != nil {
				return err
			}
		}
	}
	return nil
}

// requestWithin bounds one request of the traffic.
const requestWithin = 5 * time.Second

// startTraffic makes every person call until ctx ends.
func (d *demo) startTraffic(ctx context.Context) *sync.WaitGroup {
	var callers sync.WaitGroup
	client := &http.Client{Timeout: requestWithin}
	for _, p := range d.people {
		callers.Go(func() {
			t := time.NewTicker(p.sends)
			defer t.Stop()
			for {
				select {
				case <-t.C:
					d.call(ctx, client, p)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return &callers
}

// call makes one request. How it went shows in the picture: Tollgate counts.
func (d *demo) call(ctx context.Context, client *http.Client, p person) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/hello", d.address), nil)
	if err != nil {
		return
	}
	req.Header.Set("x-api-key", p.theirs)
	resp, err := client.Do(req)
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
}
