package xds

import (
	"context"
	"time"
)

// SetWait replaces the waiting between attempts.
func (c *Client) SetWait(wait func(context.Context, time.Duration) error) { c.wait = wait }

// Wait is the length of one wait.
func (b Backoff) Wait(failures int, random float64) time.Duration {
	return b.withDefaults().wait(failures, random)
}
