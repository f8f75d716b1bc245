package xds

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tollgate-dev/tollgate/descriptors"
)

// Options say where rules come from and where they go.
type Options struct {
	Server       string      // host:port, or any target that gRPC knows
	TLS          *tls.Config // nil: plain text
	NodeID       string      // who asks; empty means "default"
	NodeMetadata map[string]string
	Headers      map[string]string // sent along with the stream
	MaxMessage   int               // bytes of a response at most; 0 means 64 MiB
	Backoff      Backoff

	MergeDomains bool // resources may share a domain

	// Apply puts rules in force before they are acknowledged. Calls come one
	// after another.
	Apply func(*descriptors.Rules)
	// Rejected, if not nil, is told why an update was refused.
	Rejected func(error)
	Log      *slog.Logger // nil: nothing is logged
}

// Client keeps rules up to date from one management server.
type Client struct {
	options Options
	node    *corev3.Node
	dial    []grpc.DialOption
	wait    func(context.Context, time.Duration) error
}

// New checks the options; nothing is dialled before [Client.Run].
func New(o Options) (*Client, error) {
	if o.Server == "" || o.Apply == nil {
		return nil, errors.New("xds: want a server and somewhere to apply its rules")
	}
	if o.NodeID == "" {
		o.NodeID = "default"
	}
	if o.MaxMessage == 0 {
		o.MaxMessage = 64 << 20
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Backoff = o.Backoff.withDefaults()
	transport := insecure.NewCredentials()
	if o.TLS != nil {
		transport = credentials.NewTLS(o.TLS)
	}
	c := &Client{
		options: o,
		node:    &corev3.Node{Id: o.NodeID, UserAgentName: "tollgate", Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{}}},
		dial: []grpc.DialOption{
			grpc.WithTransportCredentials(transport),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(o.MaxMessage)),
			// Five minutes is what a gRPC server tolerates by default. It tells a
			// server that hangs from one that has nothing to say.
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 5 * time.Minute, Timeout: 20 * time.Second}),
		},
		wait: wait,
	}
	for k, v := range o.NodeMetadata {
		c.node.Metadata.Fields[k] = structpb.NewStringValue(v)
	}
	// The target is checked here; only a call would connect.
	conn, err := grpc.NewClient(o.Server, c.dial...)
	if err != nil {
		return nil, fmt.Errorf("xds server %q: %w", o.Server, err)
	}
	return c, conn.Close()
}

// Run keeps a stream to the server open until ctx ends, and returns ctx's error.
func (c *Client) Run(ctx context.Context) error {
	failures := 0
	for {
		heard, err := c.connect(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failures++
		if heard {
			failures = 1
		}
		d := c.options.Backoff.wait(failures, rand.Float64())
		c.options.Log.Warn("xds stream ended", "server", c.options.Server, "failures", failures, "retry_in", d, "err", err)
		if err := c.wait(ctx, d); err != nil {
			return err
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// connect serves one stream on a connection of its own until it ends. heard is
// whether the server has sent anything.
func (c *Client) connect(ctx context.Context) (heard bool, err error) {
	conn, err := grpc.NewClient(c.options.Server, c.dial...)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	headers := metadata.New(c.options.Headers)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).
		StreamAggregatedResources(metadata.NewOutgoingContext(ctx, headers))
	if err != nil {
		return false, err
	}
	// No version: a server that has come back may have other rules under the
	// version that it had before.
	request := &discoveryv3.DiscoveryRequest{Node: c.node, TypeUrl: TypeURL}
	version, refused := "", 0
	for {
		// A failed send ends the stream, and Recv says why.
		_ = stream.Send(request)
		response, err := stream.Recv()
		if err != nil {
			return heard, err
		}
		heard = true
		request = &discoveryv3.DiscoveryRequest{Node: c.node, TypeUrl: TypeURL, ResponseNonce: response.GetNonce()}
		if err := c.update(response); err != nil {
			if err := c.pause(ctx, refused); err != nil {
				return heard, err
			}
			refused++
			request.ErrorDetail = &statuspb.Status{Code: int32(codes.InvalidArgument), Message: shorten(err.Error())}
		} else {
			version, refused = response.GetVersionInfo(), 0
		}
		request.VersionInfo = version
	}
}

// longestPause bounds how long good rules may wait behind bad ones.
const longestPause = 10 * time.Second

// pause comes before a refusal that follows others: many servers answer one
// with the same rules at once, and the two would keep each other busy.
func (c *Client) pause(ctx context.Context, refused int) error {
	if refused == 0 {
		return nil
	}
	return c.wait(ctx, min(c.options.Backoff.wait(refused, 0), longestPause))
}

// update applies a response, or says why not.
func (c *Client) update(response *discoveryv3.DiscoveryResponse) error {
	rules, err := c.rules(response)
	if err != nil {
		c.options.Log.Error("xds rules rejected", "server", c.options.Server, "version", response.GetVersionInfo(), "err", err)
		if c.options.Rejected != nil {
			c.options.Rejected(err)
		}
		return err
	}
	c.options.Apply(rules)
	c.options.Log.Info("xds rules applied", "server", c.options.Server, "version", response.GetVersionInfo(), "limits", rules.Len())
	return nil
}

func (c *Client) rules(response *discoveryv3.DiscoveryResponse) (*descriptors.Rules, error) {
	if response.GetTypeUrl() != TypeURL {
		return nil, fmt.Errorf("resources of type %q: want %s", response.GetTypeUrl(), TypeURL)
	}
	resources, err := unpack(response.GetResources())
	if err != nil {
		return nil, err
	}
	return Rules(resources, descriptors.Options{MergeDomains: c.options.MergeDomains})
}

// shorten keeps what a server is told of many problems to a few kilobytes.
func shorten(message string) string {
	const limit = 4096
	if len(message) <= limit {
		return message
	}
	return strings.ToValidUTF8(message[:limit], "") + "…"
}
