// Package descriptors is under construction.
package descriptors
