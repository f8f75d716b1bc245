package extauthz

// What tests in the external package look into.
var (
	RetryAfter = retryAfter
	PerSeconds = perSeconds
)
