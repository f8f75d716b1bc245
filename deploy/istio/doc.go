// Package istio shows what `tollgate envoy --format istio` prints to Istio itself: to its validation, to the generator that
// makes Envoy's configuration of it, and what that made to a real Envoy, which then asks a real Tollgate. Istio's validation
// lets unknown and missing fields pass, so that none of the three is enough alone. It is a module of its own, for Istio's
// code takes minutes to compile.
//
//	make istio-test
package istio
