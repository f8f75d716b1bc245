package extauthz

import (
	"math"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tollgate-dev/tollgate/limits"
)

// response writes an answer as Envoy's message. It is the only place that makes
// one: a refusal always has a status other than 0, which Envoy would take for
// an admission.
func (a *answer) response(d *Verdict) *authv3.CheckResponse {
	r := &authv3.CheckResponse{Status: &statuspb.Status{Code: a.code}, DynamicMetadata: d.metadata()}
	if a.status == 0 {
		r.HttpResponse = &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers:                 options(a.set, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD),
			HeadersToRemove:         append([]string(nil), a.remove...),
			ResponseHeadersToAdd:    options(a.respond, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD),
			QueryParametersToRemove: append([]string(nil), a.removeQuery...),
		}}
		return r
	}
	r.HttpResponse = &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
		Status:  &typev3.HttpStatus{Code: typev3.StatusCode(a.status)},
		Headers: options(a.set, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD),
		Body:    string(a.body),
	}}
	return r
}

// options writes headers. For Headers the action must be the zero value, which
// sets them; Envoy 1.36 to 1.40 ignore any other there. ResponseHeadersToAdd
// would append with it, so that these say OVERWRITE_IF_EXISTS_OR_ADD.
func options(headers []ReplyHeader, action corev3.HeaderValueOption_HeaderAppendAction) []*corev3.HeaderValueOption {
	if len(headers) == 0 {
		return nil
	}
	values := make([]corev3.HeaderValue, len(headers))
	list := make([]corev3.HeaderValueOption, len(headers))
	out := make([]*corev3.HeaderValueOption, len(headers))
	for i := range headers {
		values[i].Key, values[i].Value = headers[i].Name, string(headers[i].Value)
		list[i].Header, list[i].AppendAction = &values[i], action
		out[i] = &list[i]
	}
	return out
}

// metadata returns what Envoy keeps of a decision under
// envoy.filters.http.ext_authz. Cost is always there: without it Envoy's
// ratelimit filter would leave the whole descriptor out.
func (d *Verdict) metadata() *structpb.Struct {
	fields := map[string]*structpb.Value{
		"decision": structpb.NewStringValue(string(d.Outcome)),
		"cost":     structpb.NewNumberValue(float64(d.Cost)),
	}
	if d.Consumer != "" {
		labels := make(map[string]*structpb.Value, len(d.Labels))
		for k, v := range d.Labels {
			labels[validText(k)] = structpb.NewStringValue(validText(v))
		}
		fields["consumer"] = structpb.NewStringValue(validText(d.Consumer))
		fields["labels"] = structpb.NewStructValue(&structpb.Struct{Fields: labels})
	}
	if d.Token != "" {
		fields["token"] = structpb.NewStringValue(validText(d.Token))
	}
	if d.Upstream != "" {
		fields["upstream"] = structpb.NewStringValue(validText(d.Upstream))
	}
	if d.Limit != nil {
		fields["limit"] = structpb.NewStringValue(validText(d.Limit.Limit().Name))
	}
	if n, unit := inUnit(d.Own); unit != "" {
		fields["rate_limit"] = structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
			"requests_per_unit": structpb.NewNumberValue(float64(n)), "unit": structpb.NewStringValue(unit),
		}})
	}
	return &structpb.Struct{Fields: fields}
}

// inUnit writes a limit as Envoy's ratelimit filter takes one out of metadata
// (RateLimit.Override.dynamic_metadata): so many in one unit, which is empty
// where that cannot say it.
func inUnit(s *limits.Spec) (n int64, unit string) {
	if s == nil || s.Limit().N > math.MaxUint32 {
		return 0, ""
	}
	l := s.Limit()
	if l.Kind == limits.Quota {
		switch l.Calendar {
		case limits.Minute, limits.Hour, limits.Day, limits.Month, limits.Year:
			return l.N, strings.ToUpper(string(l.Calendar))
		}
		return 0, ""
	}
	switch l.Period {
	case time.Second:
		return l.N, "SECOND"
	case time.Minute:
		return l.N, "MINUTE"
	case time.Hour:
		return l.N, "HOUR"
	case 24 * time.Hour:
		return l.N, "DAY"
	}
	return 0, ""
}

// validText makes s fit for a protobuf string.
func validText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
