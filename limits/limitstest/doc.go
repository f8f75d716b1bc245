// Package limitstest is under construction.
package limitstest
