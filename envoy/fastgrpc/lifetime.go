package fastgrpc

import (
	"errors"
	"math/rand/v2"
	"time"

	"golang.org/x/net/http2"
)

// stage is how far a connection has come in ending in good order (RFC 9113,
// section 6.8). A client that has read the first GOAWAY opens no further
// stream; once it has answered the PING behind it, all that it opened before
// has arrived, and the second GOAWAY can name the last one. So no call falls
// between.
type stage uint8

const (
	serving   stage = iota
	goingAway       // the first GOAWAY is sent; calls are still taken
	gone            // the second is sent; the connection ends with the last open call
)

// lifetime is what a connection does by the clock. A zero time is never.
type lifetime struct {
	stage     stage
	handshake time.Time // by then the client's SETTINGS must have come
	lastHeard time.Time
	pinged    time.Time // when the PING that has no answer yet was sent
	retire    time.Time // the maximum age
	second    time.Time // by then the second GOAWAY is sent, PING answered or not
	endBy     time.Time // then even open calls are dropped
	sweep     time.Time // when to look for expired streams
	lastID    uint32    // as the second GOAWAY named it

	armed   time.Time // the read deadline that is set
	writeBy time.Time // the write deadline that is set
}

var (
	errOver      = errors.New("drained")
	errHandshake = errors.New("no SETTINGS from the client in time")
	errKeepalive = errors.New("keepalive PING not answered in time")
	errAge       = errors.New("maximum connection age and its grace passed")
)

// The payloads tell the answers apart.
var (
	keepalivePing = [8]byte{'a', 'l', 'i', 'v', 'e', '?'}
	drainPing     = [8]byte{'d', 'r', 'a', 'i', 'n'}
)

func (l *lifetime) begin(opts *Options, now time.Time) {
	l.handshake = now.Add(opts.HandshakeTimeout)
	l.lastHeard = now
	if age := opts.MaxConnectionAge; age > 0 {
		l.retire = now.Add(age + time.Duration((rand.Float64()-0.5)*0.2*float64(age)))
	}
}

func (l *lifetime) heard(now time.Time) {
	l.lastHeard = now
	l.pinged = time.Time{}
}

// onClock does what is due and says when something will be.
func (c *conn) onClock(drain bool) (wake time.Time, err error) {
	l, opts := &c.life, &c.server.opts
	due := func(t time.Time) bool { return !t.IsZero() && !c.now.Before(t) }

	if !c.settled && due(l.handshake) {
		return wake, errHandshake
	}
	if due(l.endBy) {
		return wake, errAge
	}
	if l.stage == serving && drain {
		c.startDrain()
	}
	if l.stage == serving && due(l.retire) {
		if grace := opts.MaxConnectionAgeGrace; grace > 0 {
			l.endBy = c.now.Add(grace)
		}
		c.startDrain()
	}
	if l.stage == goingAway && due(l.second) {
		c.finishDrain()
	}
	if due(l.pinged.Add(opts.KeepaliveTimeout)) && !l.pinged.IsZero() {
		return wake, errKeepalive
	}
	if l.pinged.IsZero() && due(l.lastHeard.Add(opts.KeepaliveTime)) {
		l.pinged = c.now
		c.wrote(c.framer.WritePing(false, keepalivePing))
	}
	if due(l.sweep) {
		c.sweep()
		l.sweep = time.Time{}
	}
	if l.sweep.IsZero() && len(c.streams) > 0 {
		l.sweep = c.now.Add(time.Second)
	}
	return c.nextAlarm(), nil
}

// nextAlarm is the earliest time at which onClock will have something to do.
func (c *conn) nextAlarm() time.Time {
	l, opts := &c.life, &c.server.opts
	wake := l.lastHeard.Add(opts.KeepaliveTime)
	if !l.pinged.IsZero() {
		wake = l.pinged.Add(opts.KeepaliveTimeout)
	}
	earlier := func(t time.Time) {
		if !t.IsZero() && t.Before(wake) {
			wake = t
		}
	}
	if !c.settled {
		earlier(l.handshake)
	}
	if l.stage == serving {
		earlier(l.retire)
	}
	if l.stage == goingAway {
		earlier(l.second)
	}
	earlier(l.endBy)
	earlier(l.sweep)
	return wake
}

func (c *conn) startDrain() {
	c.life.stage = goingAway
	c.life.second = c.now.Add(drainTimeout)
	c.wrote(c.framer.WriteGoAway(maxStreamID, http2.ErrCodeNo, nil))
	c.wrote(c.framer.WritePing(false, drainPing))
}

func (c *conn) finishDrain() {
	c.life.stage = gone
	c.life.lastID = c.lastStream
	c.wrote(c.framer.WriteGoAway(c.lastStream, http2.ErrCodeNo, nil))
}

// over reports whether a draining connection has answered all that it owed.
func (c *conn) over() bool {
	return c.life.stage == gone && len(c.streams) == 0
}

// ignored reports whether a stream came after the last one that the second
// GOAWAY promised to answer. The client knows that it may try such a call
// again elsewhere.
func (c *conn) ignored(id uint32) bool {
	return c.life.stage == gone && id > c.life.lastID
}

// lastAllowed is the last stream that a GOAWAY may name, which never grows
// from one to the next.
func (c *conn) lastAllowed() uint32 {
	if c.life.stage == gone {
		return c.life.lastID
	}
	return c.lastStream
}

// sweep gives up streams that have been receiving or sending for too long.
// Waiting ones are their handlers' affair.
func (c *conn) sweep() {
	for _, st := range c.streams {
		if st.state == waiting || c.now.Before(st.expires) {
			continue
		}
		if st.state == receiving {
			c.refuseOpen(st, Status{Code: DeadlineExceeded, Message: "the request did not become complete in time"})
			continue
		}
		c.writeReset(st.id, http2.ErrCodeCancel)
		c.abandon(st)
	}
}
