// Package pressure shows in Kubernetes that an upstream is paused.
//
// Stores that draw on a paused upstream get the condition [Throttled], with the
// reason and the time until when, and an event; when the pause is over the
// condition becomes False. It is patched into the status subresource together
// with the version that it was read at, so that External Secrets' own condition
// Ready is never touched, and a transition is written once: a second attempt from
// an old copy is a conflict. A store that was never under pressure gets nothing.
//
// In a long pause, external secrets that ask for it get a window in which they
// are not refreshed: see package windows. Package push takes it back.
package pressure
