//go:build !operator

// Package operator is External Secrets Operator itself, built from its Go module
// with Keeper's provider as the only one. The build takes minutes, so that it
// wants to be asked for:
//
//	make eso-tools
package operator
