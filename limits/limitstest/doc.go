// Package limitstest holds what every algorithm of package limits is tested
// against: [Run], the conformance suite, which a user's own algorithm passes
// too, and [Model], which says slowly and plainly what the built-in kinds admit.
//
//	func TestMine(t *testing.T) {
//		kinds := limits.Kinds{"mine": newMine}
//		limitstest.Run(t, kinds.Compile, limits.Limit{Kind: "mine", N: 10, Period: time.Second})
//	}
package limitstest
