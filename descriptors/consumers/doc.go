// Package consumers is under construction.
package consumers
