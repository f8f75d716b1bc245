//go:build !apiserver

// Package apiserver is Kubernetes' own kube-apiserver, built from its Go module
// k8s.io/kubernetes. The build takes minutes, so that it wants to be asked for:
//
//	make eso-tools
package apiserver
