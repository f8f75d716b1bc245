package fastgrpc

import "time"

// A budget bounds what a connection may send that asks for nothing: PINGs,
// SETTINGS, resets, priorities, window updates, empty frames, frames for
// streams that are over, unknown types. Each costs a little to read and to
// answer and earns nobody a decision, which is what floods are made of
// (CVE-2019-9512 to 9518, CVE-2023-44487 "rapid reset", CVE-2024-27316). One
// currency for all of them leaves no frame type forgotten.
//
// Answered calls and time earn it back, so that a client that works never runs
// out: grpc-go sends at most one PING and one WINDOW_UPDATE an answer, and a
// client that cancels all its calls at once has at most MaxStreams of them.
type budget struct {
	left   int
	refill time.Time // up to when time has been credited
}

const (
	budgetFull      = 20_000
	budgetPerAnswer = 4
	budgetPerSecond = 100
)

func (b *budget) spend(n int) (ok bool) {
	b.left -= n
	return b.left >= 0
}

func (b *budget) answered() { b.left = min(b.left+budgetPerAnswer, budgetFull) }

// pass credits the time up to now, in whole steps so that nothing is lost.
func (b *budget) pass(now time.Time) {
	const step = time.Second / budgetPerSecond
	n := now.Sub(b.refill) / step
	if n <= 0 {
		return
	}
	b.refill = b.refill.Add(n * step)
	b.left = int(min(int64(b.left)+int64(n), budgetFull))
}
