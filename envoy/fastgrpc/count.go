package fastgrpc

import "time"

// An answered is calls that are to be told to their Counter: all that came with
// one read, mostly. So counting a call costs neither a look at the clock nor
// memory that others use.
type answered struct {
	counter  Counter // nil: none
	code     Code
	received time.Time
	calls    int
}

// count notes a call that the handler has answered.
func (c *conn) count(handler Handler, code Code) {
	a := &c.answered
	if a.calls > 0 && a.counter == handler && a.code == code && a.received == c.now {
		a.calls++
		return
	}
	c.tellCounter()
	if counter, ok := handler.(Counter); ok {
		*a = answered{counter, code, c.now, 1}
	}
}

// tellCounter tells what was counted, before anybody sees an answer.
func (c *conn) tellCounter() {
	if a := &c.answered; a.calls > 0 {
		a.counter.Answered(a.calls, a.code, time.Since(a.received))
		a.calls = 0
	}
}
