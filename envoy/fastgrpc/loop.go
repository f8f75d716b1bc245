package fastgrpc

import (
	"errors"
	"io"
	"os"
	"time"
)

// source is what the Framer reads from, and the place where a connection's
// goroutine sleeps. The Framer asks it for bytes exactly when it has worked
// off all whole frames that were read before. So this is where everything is
// done that must happen before sleeping: answers of calls that waited, what is
// due by the clock, and the one write for all that was read.
//
// It may be called in the middle of a frame. That is no harm: what is written
// here goes through the Framer's other half.
type source struct{ c *conn }

func (s source) Read(p []byte) (int, error) {
	c := s.c
	for {
		wake, err := c.beforeSleep()
		if err != nil {
			c.ioError = err
			return 0, err
		}
		// An alarm that rings too early is let ring: it costs less than
		// setting it anew for each read.
		if c.life.armed.IsZero() || wake.Before(c.life.armed) {
			c.life.armed = wake
			if err := c.nc.SetReadDeadline(wake); err != nil {
				c.ioError = err
				return 0, err
			}
		}
		if !c.fallAsleep() {
			continue
		}
		n, err := c.nc.Read(p)
		c.wakeUp()
		if n > 0 {
			c.life.heard(c.now)
			return n, nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.life.armed = time.Time{} // it may have been another goroutine's: see interrupt
			continue
		}
		if err != nil {
			c.ioError = err
			return 0, err
		}
	}
}

// beforeSleep does what is to be done and says when to wake up at the latest.
func (c *conn) beforeSleep() (wake time.Time, err error) {
	finished, drain := c.collect()
	for _, f := range finished {
		c.answerWaited(f)
	}
	wake, err = c.onClock(drain)
	if err != nil {
		return wake, err
	}
	if c.over() {
		c.flush()
		return wake, errOver
	}
	if c.flush(); c.ioError != nil {
		return wake, c.ioError
	}
	c.giveBack()
	return wake, nil
}

// collect takes what other goroutines have left for this one.
func (c *conn) collect() (finished []outcome, drain bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	finished, drain = c.finished, c.drain
	c.finished = nil
	return finished, drain
}

// fallAsleep marks the goroutine as one to be woken, unless there is something
// to do already.
func (c *conn) fallAsleep() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = len(c.finished) == 0 && (!c.drain || c.life.stage != serving)
	return c.reading
}

func (c *conn) wakeUp() {
	c.mu.Lock()
	c.reading = false
	c.mu.Unlock()
	c.now = time.Now()
	c.budget.pass(c.now)
}

// interrupt wakes the connection's goroutine from its read, by a deadline that
// has passed. It is called with mu held, so that the deadline cannot be set
// over a later one of the goroutine's own. TLS survives such a read
// (crypto/tls keeps what it had read of a record).
func (c *conn) interrupt() {
	if c.reading {
		c.reading = false
		// An error means that the connection is closed, which wakes it too.
		_ = c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

// requestDrain asks the connection to end in good order. Any goroutine may
// call it.
func (c *conn) requestDrain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain = true
	c.interrupt()
}

// output gathers frames until they are flushed.
type output struct{ buf []byte }

func (o *output) Write(p []byte) (int, error) {
	o.buf = append(o.buf, p...)
	return len(p), nil
}

// wrote takes the result of the Framer's Write methods, which only fail for
// frames that RFC 9113 forbids: a defect here.
func (c *conn) wrote(err error) {
	if err != nil && c.ioError == nil {
		c.ioError = err
	}
	if len(c.out.buf) >= flushAt {
		c.flush()
	}
	if c.ioError != nil {
		c.out.buf = c.out.buf[:0] // nobody will read it
	}
}

// flush writes what has gathered. A client that does not take it within
// WriteTimeout loses its connection; meanwhile nothing more is read from it,
// so that a slow reader bounds what it is owed.
func (c *conn) flush() {
	if len(c.out.buf) == 0 || c.ioError != nil {
		return
	}
	c.tellCounter()
	// The deadline is moved only when it has come near, as moving it costs
	// more than all else here.
	timeout := c.server.opts.WriteTimeout
	if c.life.writeBy.Sub(c.now) < timeout {
		c.life.writeBy = c.now.Add(2 * timeout)
		if err := c.nc.SetWriteDeadline(c.life.writeBy); err != nil {
			c.ioError = err
			return
		}
	}
	if _, err := c.nc.Write(c.out.buf); err != nil {
		c.ioError = err
	}
	c.out.buf = c.out.buf[:0]
	if cap(c.out.buf) > 2*flushAt {
		c.out.buf = nil
	}
}

// end closes the connection. If the server ended it, the client gets a moment
// to read what was written and to close: closing with unread bytes would throw
// that away (TCP answers them with a reset).
func (c *conn) end(reason error) {
	c.tellCounter()
	for _, st := range c.streams {
		if st.cancel != nil {
			st.cancel()
		}
	}
	if c.ioError == nil || errors.Is(c.ioError, errOver) {
		if half, ok := c.nc.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite() // an error is the end as well
		}
		_ = c.nc.SetReadDeadline(time.Now().Add(lingerTimeout))
		_, _ = io.Copy(io.Discard, c.nc)
	}
	_ = c.nc.Close()
	c.server.lent.Add(-int64(c.borrowed))
	c.server.opts.Log.Debug("connection ended", "remote_address", c.nc.RemoteAddr().String(), "err", reason)
}
