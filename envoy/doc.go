// Package envoy is under construction.
package envoy
