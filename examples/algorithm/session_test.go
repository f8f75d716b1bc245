package main

import (
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/limitstest"
)

// TestSession holds the algorithm to what every limit of Tollgate promises.
func TestSession(t *testing.T) {
	kinds := limits.Kinds{"session": newSession}
	limitstest.Run(t, kinds.Compile, limits.Limit{Kind: "session", N: 10, Period: time.Second})
}
