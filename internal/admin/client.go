package admin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
)

// maxAnswer bounds what a client reads of one answer.
const maxAnswer = 64 << 20

// Client calls the admin API of a Tollgate. It is safe for concurrent use.
type Client struct {
	Server string // as http://127.0.0.1:8080
	Token  string // the admin token; empty: none

	HTTP *http.Client // nil: http.DefaultClient, which keeps few connections
}

// Consumers returns every consumer, by id.
func (c *Client) Consumers(ctx context.Context) ([]Consumer, error) {
	var all []Consumer
	for token := ""; ; {
		var page ConsumerPage
		query := url.Values{"page_size": {"1000"}, "page_token": {token}}
		if _, err := c.do(ctx, call{path: "/v1/consumers?" + query.Encode(), out: &page}); err != nil {
			return nil, err
		}
		all = append(all, page.Consumers...)
		if token = page.NextPageToken; token == "" {
			return all, nil
		}
	}
}

// Consumer returns one consumer and its version for PutConsumer.
func (c *Client) Consumer(ctx context.Context, id string) (consumer Consumer, etag string, err error) {
	etag, err = c.do(ctx, call{path: path("consumers", id), out: &consumer})
	return consumer, etag, err
}

// PutConsumer changes the version of a consumer that the caller has seen, or,
// where etag is empty, adds one that is not there yet. When somebody else was
// faster, the error is a [Problem] of status 409.
func (c *Client) PutConsumer(ctx context.Context, consumer Consumer, etag string) error {
	k := call{method: http.MethodPut, path: path("consumers", consumer.ID), etag: etag, in: consumer}
	k.absent = etag == ""
	_, err := c.do(ctx, k)
	return err
}

// ConsumerIDs returns up to n ids that begin with a prefix, in order.
func (c *Client) ConsumerIDs(ctx context.Context, prefix string, n int) ([]string, error) {
	after := ""
	if last := len(prefix) - 1; last >= 0 { // the greatest that is below the prefix, as ids go
		after = prefix[:last] + string(prefix[last]-1) + "~"
	}
	var page ConsumerPage
	query := url.Values{"page_size": {strconv.Itoa(n)}, "page_token": {base64.RawURLEncoding.EncodeToString([]byte(after))}}
	if _, err := c.do(ctx, call{path: "/v1/consumers?" + query.Encode(), out: &page}); err != nil {
		return nil, err
	}
	var ids []string
	for _, consumer := range page.Consumers {
		if strings.HasPrefix(consumer.ID, prefix) {
			ids = append(ids, consumer.ID)
		}
	}
	return ids, nil
}

// Top returns up to n consumers, by "admitted" or "refused".
func (c *Client) Top(ctx context.Context, by string, n int) (Top, error) {
	var t Top
	query := url.Values{"by": {by}, "n": {strconv.Itoa(n)}}
	_, err := c.do(ctx, call{path: "/v1/top?" + query.Encode(), out: &t})
	return t, err
}

// Refusals returns up to n bursts of refusals that go on.
func (c *Client) Refusals(ctx context.Context, n int) (Refusals, error) {
	var r Refusals
	_, err := c.do(ctx, call{path: "/v1/refusals?n=" + strconv.Itoa(n), out: &r})
	return r, err
}

// Config returns what the running configuration was read from.
func (c *Client) Config(ctx context.Context) (Config, error) {
	var config Config
	_, err := c.do(ctx, call{path: "/v1/config", out: &config})
	return config, err
}

// RemoveConsumer takes a consumer and its tokens away.
func (c *Client) RemoveConsumer(ctx context.Context, id string) error {
	_, err := c.do(ctx, call{method: http.MethodDelete, path: path("consumers", id)})
	return err
}

// Tokens lists a consumer's tokens.
func (c *Client) Tokens(ctx context.Context, consumer string) ([]Token, error) {
	var t Tokens
	_, err := c.do(ctx, call{path: path("consumers", consumer, "tokens"), out: &t})
	return t.Tokens, err
}

// IssueToken makes a token.
func (c *Client) IssueToken(ctx context.Context, consumer string, t NewToken) (Issued, error) {
	var issued Issued
	_, err := c.do(ctx, call{method: http.MethodPost, path: path("consumers", consumer, "tokens"), in: t, out: &issued})
	return issued, err
}

// RotateToken gives a token a new secret.
func (c *Client) RotateToken(ctx context.Context, consumer, token string, r Rotation) (Issued, error) {
	var issued Issued
	_, err := c.do(ctx, call{method: http.MethodPost, path: path("consumers", consumer, "tokens", token, "rotate"), in: r, out: &issued})
	return issued, err
}

// RevokeToken ends a token at once.
func (c *Client) RevokeToken(ctx context.Context, consumer, token string) error {
	_, err := c.do(ctx, call{method: http.MethodDelete, path: path("consumers", consumer, "tokens", token)})
	return err
}

// Settings returns the settings in force.
func (c *Client) Settings(ctx context.Context) (Settings, error) {
	var s Settings
	_, err := c.do(ctx, call{path: "/v1/settings", out: &s})
	return s, err
}

// SetSettings changes the members that are not nil and returns all of them.
func (c *Client) SetSettings(ctx context.Context, s Settings) (Settings, error) {
	var now Settings
	_, err := c.do(ctx, call{method: http.MethodPut, path: "/v1/settings", in: s, out: &now})
	return now, err
}

// Upstreams returns every configured upstream.
func (c *Client) Upstreams(ctx context.Context) ([]Upstream, error) {
	var u Upstreams
	_, err := c.do(ctx, call{path: "/v1/upstreams", out: &u})
	return u.Upstreams, err
}

func path(parts ...string) string {
	var b strings.Builder
	b.WriteString("/v1")
	for _, p := range parts {
		b.WriteString("/" + url.PathEscape(p))
	}
	return b.String()
}

// call is one request.
type call struct {
	method string // empty means GET
	path   string
	etag   string    // If-Match
	absent bool      // If-None-Match: *
	in     any       // nil: no body
	out    any       // nil: no answer is expected
	copy   io.Writer // takes the answer as it is; nil: out does
}

func (c *Client) do(ctx context.Context, k call) (etag string, err error) {
	var body io.Reader
	if k.in != nil {
		data, err := json.Marshal(k.in)
		if err != nil {
			return "", err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, k.method, strings.TrimRight(c.Server, "/")+k.path, body)
	if err != nil {
		return "", c.unusable(err)
	}
	if body != nil {
		req.Header.Set("content-type", "application/json")
	}
	if k.etag != "" {
		req.Header.Set("if-match", k.etag)
	}
	if k.absent {
		req.Header.Set("if-none-match", "*")
	}
	if c.Token != "" {
		req.Header.Set("authorization", "Bearer "+c.Token)
	}
	resp, err := cmp.Or(c.HTTP, http.DefaultClient).Do(req)
	if err != nil {
		return "", c.unreachable(err)
	}
	defer resp.Body.Close()
	if k.copy != nil && resp.StatusCode < http.StatusBadRequest {
		if _, err := io.Copy(k.copy, resp.Body); err != nil {
			return "", fmt.Errorf("%s: %w", c.Address(), err)
		}
		return "", nil
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", fmt.Errorf("%s: %w", c.Address(), err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return "", c.refusal(resp, data)
	}
	if k.out != nil {
		if err := json.Unmarshal(data, k.out); err != nil {
			return "", fmt.Errorf("%s answers what is not Tollgate's admin API (%w): check --server", c.Address(), err)
		}
	}
	return resp.Header.Get("etag"), nil
}

// Address is the server's address as it may be shown: without a password.
func (c *Client) Address() string {
	u, err := url.Parse(c.Server)
	if err != nil {
		return "the server"
	}
	return u.Redacted()
}

// unusable is about an address that is none. What it is may hold a password.
func (c *Client) unusable(err error) error {
	if u := new(url.Error); errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("the server's address: %w: want one such as http://127.0.0.1:8080", err)
}

func (c *Client) unreachable(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the URL, which is named here
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("no Tollgate answers at %s: start `tollgate serve`, or name another server with --server or TOLLGATE_SERVER", c.Address())
	}
	return fmt.Errorf("%s: %w", c.Address(), err)
}

// refusal reads a problem, and makes one of what is not.
func (c *Client) refusal(resp *http.Response, data []byte) error {
	p := &Problem{Status: resp.StatusCode, Title: strconv.Itoa(resp.StatusCode) + " " + http.StatusText(resp.StatusCode)}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("content-type")); kind == "application/problem+json" {
		_ = json.Unmarshal(data, p) // what cannot be read keeps the status
	}
	switch {
	case p.Status != http.StatusUnauthorized:
	case c.Token == "":
		p.Detail = "the server wants its admin token: set TOLLGATE_ADMIN_TOKEN or --admin-token"
	default:
		p.Detail = "the server has another admin token than this: check TOLLGATE_ADMIN_TOKEN or --admin-token"
	}
	return p
}
