// Package consumerstest is the conformance suite of sources of consumers. Every
// source that can be written to passes [RunStore]; its tests call it with a
// function that opens the source on what an earlier opening left.
package consumerstest
