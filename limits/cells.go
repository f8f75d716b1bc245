package limits

// cells is the state of an algorithm.
type cells struct{}
