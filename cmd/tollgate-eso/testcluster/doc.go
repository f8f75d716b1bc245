// Package testcluster runs the API server of a real Kubernetes for tests, on
// loopback: kube-apiserver as build.sh builds it, on Debian's etcd, with the
// definitions of External Secrets' objects. Nothing reconciles anything in it;
// [Cluster.Operator] adds External Secrets itself.
//
// What is missing skips the test, loudly: `make eso-tools` gets all of it.
package testcluster
