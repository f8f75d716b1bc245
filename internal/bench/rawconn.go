package main

import (
	"errors"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// rawConn is a connection outside of Go's scheduler. It never waits: a Read
// without anything to read is EAGAIN, and what cannot be written yet is kept.
type rawConn struct {
	net.Conn // closed; nothing of it is used
	fd       int
	unsent   []byte
}

// takeOver takes a connection from the scheduler.
func takeOver(nc net.Conn) (*rawConn, error) {
	own, ok := nc.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	raw, err := own.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &rawConn{Conn: nc}
	if controlErr := raw.Control(func(fd uintptr) { s.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); controlErr != nil {
		return nil, controlErr
	}
	return s, errors.Join(err, nc.Close())
}

// Read reads what has come.
func (s *rawConn) Read(p []byte) (int, error) {
	n, err := unix.Read(s.fd, p)
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return max(n, 0), err
}

// Write sends what the kernel takes now and keeps the rest.
func (s *rawConn) Write(p []byte) (int, error) {
	s.unsent = append(s.unsent, p...)
	return len(p), s.push()
}

// push sends what was kept.
func (s *rawConn) push() error {
	for len(s.unsent) > 0 {
		n, err := unix.Write(s.fd, s.unsent)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		}
		s.unsent = append(s.unsent[:0], s.unsent[max(n, 0):]...)
	}
	return nil
}

// Close closes the connection.
func (s *rawConn) Close() error { return unix.Close(s.fd) }
