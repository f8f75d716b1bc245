package fastgrpc

import (
	"errors"
	"fmt"
)

// OnEnd has f told of each connection that has ended what it kept that it
// should not have, or nil. It is called before Serve; f by several goroutines.
func OnEnd(s *Server, f func(leftover error)) {
	s.ended = func(c *conn) { f(c.leftover()) }
}

// leftover says what a connection that has ended holds beyond its open
// streams.
func (c *conn) leftover() error {
	var errs []error
	held := 0
	for id, st := range c.streams {
		if held += st.buffered; st.id != id {
			errs = append(errs, fmt.Errorf("stream %d is listed as %d", st.id, id))
		}
	}
	if held > c.buffered || held < c.buffered && c.abandoned == 0 {
		errs = append(errs, fmt.Errorf("%d bytes accounted for, %d held by %d open streams", c.buffered, held, len(c.streams)))
	}
	for _, st := range c.blocked {
		if c.streams[st.id] != st || st.state != sending {
			errs = append(errs, fmt.Errorf("stream %d is blocked and not open", st.id))
		}
	}
	kept := 0
	for _, st := range c.free {
		kept += st.room()
		if st.buffered != 0 || len(st.pending) != 0 || len(st.body) != 0 || st.cancel != nil {
			errs = append(errs, fmt.Errorf("a finished stream keeps something: %+v", st))
		}
	}
	if kept != c.kept || kept > keepCapacity {
		errs = append(errs, fmt.Errorf("%d finished streams take %d bytes, %d accounted for, want at most %d", len(c.free), kept, c.kept, keepCapacity))
	}
	if len(c.streams)+c.abandoned > int(c.server.opts.MaxStreams) {
		errs = append(errs, fmt.Errorf("%d open streams and %d abandoned, want at most %d", len(c.streams), c.abandoned, c.server.opts.MaxStreams))
	}
	return errors.Join(errs...)
}
