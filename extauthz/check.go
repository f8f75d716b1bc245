package extauthz

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tollgate-dev/tollgate/limits"
)

// Check implements authv3.AuthorizationServer. A refusal is an answer. An error
// (INVALID_ARGUMENT for a request that cannot be meant, or the caller's own
// cancellation) leaves it to Envoy's failure_mode_allow whether the request passes.
func (s *Server) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	w := s.works.Get().(*work)
	defer s.release(w)
	p, now := s.plan.Load(), s.clock.Now()
	err := w.view.read(ctx, p, req)
	if err = s.settle(ctx, p, now, w, err); err != nil {
		return nil, err
	}
	return w.answer.response(&w.verdict), nil
}

// settle decides about the request that was read into w, unless reading failed,
// tells the Observer and composes the answer.
func (s *Server) settle(ctx context.Context, p *plan, now limits.Time, w *work, err error) error {
	if err == nil {
		err = s.decide(ctx, p, s.clock, now, &w.view, &w.verdict)
	}
	if errors.Is(err, limits.ErrWouldWait) {
		return err // to be asked again
	}
	s.observe(ctx, now, w, err)
	if err != nil {
		return rpcError(err)
	}
	w.answer.compose(&w.view, &w.verdict)
	return nil
}

func rpcError(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	if errors.Is(err, errWaiting) {
		return status.Error(codes.Unavailable, err.Error())
	}
	return status.Error(codes.InvalidArgument, validText(err.Error()))
}

// observe tells the Observer how a call went.
func (s *Server) observe(ctx context.Context, now limits.Time, w *work, err error) {
	if s.observer == nil {
		return
	}
	d, e := &w.verdict, &w.event
	*e = Event{
		API: "ext_authz", Outcome: d.Outcome, Reason: d.Reason, Domain: s.lasting(d.Domain), Rule: d.Rule, Upstream: d.Upstream,
		Consumer: d.Consumer, Token: d.Token, Limit: d.Limit, Decision: d.Decision,
		Took: s.clock.Now().Sub(now) - d.Wait, Wait: d.Wait,
	}
	if err != nil {
		e.Outcome, e.Reason = Failed, ""
	}
	if err == nil {
		d.tally()
	}
	if !d.Allowed() {
		e.Method, e.Path, e.RequestID = w.view.Method, w.view.Path, w.view.ID
	}
	if s.traced || !d.Allowed() {
		e.Trace = trace(ctx, &w.view)
	}
	s.observer.Observe(e)
}

// lasting returns a domain's name as a string that outlives the request, whose
// context extensions it may come from.
func (s *Server) lasting(domain string) string {
	if own := s.plan.Load().policy.Domain; own == domain {
		return own
	}
	if rules := s.book.Rules(); rules != nil {
		if d := rules.Domain(domain); d != nil {
			return d.Name()
		}
	}
	return strings.Clone(domain)
}

var errNoHTTP = errors.New("this is no HTTP request: attributes.request.http is empty")

// read fills v from Envoy's message.
func (v *View) read(ctx context.Context, p *plan, req *authv3.CheckRequest) error {
	attributes := req.GetAttributes()
	http := attributes.GetRequest().GetHttp()
	v.ID, v.Method, v.Host, v.Path = http.GetId(), http.GetMethod(), http.GetHost(), http.GetPath()
	v.readHeaders(http)
	for name, value := range attributes.GetContextExtensions() {
		v.Context = append(v.Context, Field{name, value})
	}
	v.Principal = attributes.GetSource().GetPrincipal()
	v.readMetadata(p, attributes.GetMetadataContext())
	return v.complete(ctx, p, http.GetQuery(), attributes.GetSource().GetAddress().GetSocketAddress().GetAddress())
}

func (v *View) readMetadata(p *plan, m *corev3.Metadata) {
	for _, path := range p.paths {
		if value, ok := metadataAt(m, path); ok {
			v.Metadata = append(v.Metadata, MetadataValue{path, value})
		}
	}
}

// complete adds what follows from the rest: query is that of a path without one,
// peer the address at the other end of the client's connection.
func (v *View) complete(ctx context.Context, p *plan, query, peer string) error {
	if v.Method == "" && v.Path == "" && len(v.Headers) == 0 {
		return errNoHTTP
	}
	if query != "" && !strings.Contains(v.Path, "?") {
		v.Path += "?" + query
	}
	if p.remote {
		v.RemoteAddress = remoteAddress(ctx, v, peer)
	}
	return nil
}

// readHeaders reads either of the two shapes that Envoy sends: a map with
// repeated headers joined by commas or, with encode_raw_headers, a list.
func (v *View) readHeaders(http *authv3.AttributeContext_HttpRequest) {
	list := http.GetHeaderMap().GetHeaders()
	for _, h := range list {
		value := h.GetValue()
		if raw := h.GetRawValue(); len(raw) > 0 {
			value = string(raw)
		}
		v.Headers = append(v.Headers, Field{strings.ToLower(h.GetKey()), value})
	}
	if len(list) > 0 {
		return
	}
	for name, value := range http.GetHeaders() {
		v.Headers = append(v.Headers, Field{strings.ToLower(name), value})
	}
	// Names that differ only in their case are the same header: which of the
	// values comes first must not depend on the order of a map.
	slices.SortFunc(v.Headers, func(a, b Field) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Value, b.Value))
	})
}

// metadataAt returns the value at a namespace and path of keys as text.
func metadataAt(m *corev3.Metadata, path []string) (string, bool) {
	if len(path) < 2 {
		return "", false
	}
	at := m.GetFilterMetadata()[path[0]]
	for _, key := range path[1 : len(path)-1] {
		at = at.GetFields()[key].GetStructValue()
	}
	value, ok := at.GetFields()[path[len(path)-1]]
	if !ok {
		return "", false
	}
	switch k := value.GetKind().(type) {
	case *structpb.Value_StringValue:
		return k.StringValue, true
	case *structpb.Value_NumberValue:
		return strconv.FormatFloat(k.NumberValue, 'f', -1, 64), true
	case *structpb.Value_BoolValue:
		return strconv.FormatBool(k.BoolValue), true
	}
	return "", true
}

// remoteAddress returns the client address that Envoy trusts: what Envoy says in
// the call's own metadata (x-client-ip, from %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%),
// else the header that Envoy sets at the edge of the trusted network, else the
// TCP peer. x-forwarded-for is never read: its beginning is the client's.
func remoteAddress(ctx context.Context, v *View, peer string) string {
	if address := callField(ctx, "x-client-ip"); isAddress(address) {
		return address
	}
	if address, ok := v.header("x-envoy-external-address"); ok && isAddress(address) {
		return address
	}
	return peer
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}
