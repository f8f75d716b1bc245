package telemetry

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/tollgate-dev/tollgate/extauthz"
)

// always is the bound that every trace id is below.
const always = 1 << 63

// sampler decides which requests get a span, as the samplers of the
// OpenTelemetry SDK do. Those need a context and a span to ask, this one nothing:
// what is not sampled costs a comparison.
type sampler struct {
	parentBased bool   // do as the span before did, where there is one
	bound       uint64 // of the other traces, sample those whose id is below
}

// newSampler reads OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG.
func newSampler(lookup func(string) (string, bool)) (sampler, error) {
	name, _ := lookup("OTEL_TRACES_SAMPLER")
	base, parentBased := strings.CutPrefix(strings.ToLower(strings.TrimSpace(name)), "parentbased_")
	s := sampler{parentBased: parentBased, bound: always}
	switch base {
	case "":
		s.parentBased = true
	case "always_on":
	case "always_off":
		s.bound = 0
	case "traceidratio":
		arg, _ := lookup("OTEL_TRACES_SAMPLER_ARG")
		if arg = strings.TrimSpace(arg); arg == "" {
			break
		}
		ratio, err := strconv.ParseFloat(arg, 64)
		if err != nil || !(ratio >= 0 && ratio <= 1) { // nor NaN
			return s, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG: %q: want a number from 0 to 1", arg)
		}
		if ratio < 1 {
			s.bound = uint64(ratio * always)
		}
	default:
		return s, fmt.Errorf("OTEL_TRACES_SAMPLER: %q: want always_on, always_off or traceidratio, each also as parentbased_…", name)
	}
	return s, nil
}

func (s sampler) samples(parent *extauthz.Trace) bool {
	switch {
	case !parent.Valid():
		return s.bound > 0 && rand.Uint64()>>1 < s.bound
	case s.parentBased:
		return parent.Sampled
	}
	return binary.BigEndian.Uint64(parent.ID[8:])>>1 < s.bound
}
