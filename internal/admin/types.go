package admin

import (
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/internal/telemetry"
)

// Consumer is a consumer as the API shows and takes it. An ID in a body must be
// the one of the path.
type Consumer struct {
	ID       string            `json:"id"`
	Plan     string            `json:"plan"`
	Limits   consumers.Limits  `json:"limits"` // none: the plan's or the default; [{"rate":"none"}]: unlimited
	Labels   map[string]string `json:"labels"`
	Disabled bool              `json:"disabled"`
}

// ConsumerPage is a part of all consumers, by id.
type ConsumerPage struct {
	Consumers     []Consumer `json:"consumers"`
	NextPageToken string     `json:"next_page_token"` // empty: this was the last one
}

// Token is a token without its secret.
type Token struct {
	ID            string     `json:"id"`
	Expires       *time.Time `json:"expires"` // null: never
	Created       *time.Time `json:"created"` // null: unknown
	PreviousUntil *time.Time `json:"previous_until,omitempty"`
}

// Tokens is every token of a consumer.
type Tokens struct {
	Tokens []Token `json:"tokens"`
}

// NewToken asks for a token.
type NewToken struct {
	ID      string     `json:"id"`
	Expires *time.Time `json:"expires,omitempty"`
}

// Rotation asks for a new secret.
type Rotation struct {
	Overlap string `json:"overlap,omitempty"` // how long the old one works on; empty means 0s
}

// Issued is a token with its secret: the only time that it is shown.
type Issued struct {
	ID      string     `json:"id"`
	Token   string     `json:"token"`
	Expires *time.Time `json:"expires"`
}

// Usage is what the tokens of a consumer have used.
type Usage struct {
	Usage []LimitUsage `json:"usage"`
}

// LimitUsage is what one token has used of one limit.
type LimitUsage struct {
	Token     string  `json:"token"`
	Limit     string  `json:"limit"`
	Remaining int64   `json:"remaining"`
	Reset     float64 `json:"reset"` // seconds until the limit is as good as new
	Admitted  int64   `json:"admitted"`
	Refused   int64   `json:"refused"`
}

// Settings are what operators change without touching a file. Of a PUT, null
// or missing members stay.
type Settings struct {
	Mode         *string `json:"mode,omitempty"`
	DefaultLimit *string `json:"default_limit,omitempty"`
	LogLevel     *string `json:"log_level,omitempty"`
}

// Top is the busiest or the most refused consumers.
type Top struct {
	Top []telemetry.Tally `json:"top"`
}

// Refusals is who is being refused just now, by what and since when.
type Refusals struct {
	Refusals []telemetry.Refusal `json:"refusals"`
}

// Config is what the running configuration was read from.
type Config struct {
	LoadedAt  time.Time `json:"loaded_at"`
	Files     []string  `json:"files"`
	LastError *string   `json:"last_error"` // why the files as they are now are not in force; null: they are
}
