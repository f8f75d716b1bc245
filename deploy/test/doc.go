// Package test holds what Tollgate prints and ships for Kubernetes to the
// schemas of those who read it: Helm, Kubernetes, Istio, Envoy Gateway. It is a
// module of its own, so that their libraries are nobody else's.
//
//	make deploy-test
package test
