// Package webhook takes other people's word that a secret has changed, and keeps
// it until somebody has acted upon it.
//
// A [Receiver] serves POST /webhooks/NAME. It is closed unless a hook is
// configured, and a hook wants a secret or a client certificate. A [Hook]'s
// [Adapter] says by JSON paths where in a body the event, its records, its time
// and its id stand; [Preset] has the adapters of known senders. What was taken is
// on disk, in a [Queue], before the sender is told so; the same event sent twice
// is one, also over a restart.
//
// Answers:
//
//	202  taken, seen before, or of no matter; told apart by the metric's outcome
//	400  not JSON, or not of the adapter's form
//	401  neither the secret nor a certificate that the hook knows
//	403  older or newer than the replay window allows
//	413  over 256 KiB
//	429  more than the hook may send
//	503  the queue is full or its disk fails: send it again
package webhook
