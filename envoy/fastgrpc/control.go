package fastgrpc

import (
	"golang.org/x/net/http2"
)

// onSettings applies the client's settings and acknowledges them (RFC 9113,
// section 6.5). Of a setting that is named twice the last value counts.
func (c *conn) onSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return c.spend(1)
	}
	window := c.peerWindow
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingHeaderTableSize:
			c.replies.setTableSize(s.Val)
		case http2.SettingInitialWindowSize:
			window = int64(s.Val)
		case http2.SettingMaxFrameSize:
			c.peerFrame = int(min(s.Val, flushAt))
		case http2.SettingMaxHeaderListSize:
			c.peerHeaderList = s.Val
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.settled = true
	c.wrote(c.framer.WriteSettingsAck())
	change := window - c.peerWindow
	if change == 0 {
		return c.spend(1)
	}
	// Section 6.9.2: the change concerns all open streams, whose windows may
	// become negative.
	c.peerWindow = window
	for _, st := range c.streams {
		if st.sendWindow += change; st.sendWindow > maxWindow {
			return connError{http2.ErrCodeFlowControl, "a SETTINGS change made a window too large"}
		}
	}
	c.pumpAll()
	return c.spend(1 + len(c.streams)/64)
}

// onWindowUpdate opens a window (RFC 9113, section 6.9.1).
func (c *conn) onWindowUpdate(f *http2.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		closed := c.sendWindow <= 0
		if c.sendWindow += int64(f.Increment); c.sendWindow > maxWindow {
			return connError{http2.ErrCodeFlowControl, "the connection's window is too large"}
		}
		if closed {
			c.pumpAll()
		}
		return c.spend(1)
	}
	st := c.streams[f.StreamID]
	if st == nil {
		if c.idle(f.StreamID) {
			return connError{http2.ErrCodeProtocol, "WINDOW_UPDATE on an idle stream"}
		}
		return c.spend(1)
	}
	if st.sendWindow += int64(f.Increment); st.sendWindow > maxWindow {
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeFlowControl}
	}
	if st.state == sending {
		c.pump(st)
	}
	return c.spend(1)
}

func (c *conn) onPing(f *http2.PingFrame) error {
	if !f.IsAck() {
		c.wrote(c.framer.WritePing(true, f.Data))
		return c.spend(1)
	}
	if f.Data == drainPing && c.life.stage == goingAway {
		c.finishDrain()
		return nil
	}
	return c.spend(1)
}

func (c *conn) onReset(f *http2.RSTStreamFrame) error {
	if c.idle(f.StreamID) {
		return connError{http2.ErrCodeProtocol, "RST_STREAM on an idle stream"}
	}
	if st := c.streams[f.StreamID]; st != nil {
		c.abandon(st)
	}
	c.resets.forget(f.StreamID) // nothing more can be under way
	return c.spend(1)
}

// idle reports whether the client has not opened the stream yet.
func (c *conn) idle(id uint32) bool { return id%2 == 0 || id > c.lastStream }
