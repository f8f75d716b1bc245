package main

import (
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// open sends at Poisson-distributed times, whatever comes back, and measures
// latency from when a request was due. It begins at a time.
//
// One thread drives all connections, outside of Go's scheduler: it sleeps in
// ppoll(2) until the next request is due or an answer is there. Go's own timers
// wait in whole milliseconds where nothing else is to be done, which is longer
// than most answers take, and would be measured with them. How late requests
// were handed to the kernel is measured beside.
func (l load) open(workers []*worker, begin time.Time) error {
	runtime.LockOSThread() // and never unlocked, so that the thread ends with its timer
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return err
	}
	o := &pacer{workers: workers, from: begin.Add(l.Warm), rate: l.Rate}
	o.until = o.from.Add(l.Run)
	for _, w := range workers {
		s, err := takeOver(w.conn.nc)
		if err != nil {
			return err
		}
		w.conn.nc = s
		o.sockets = append(o.sockets, s)
		o.polled = append(o.polled, unix.PollFd{Fd: int32(s.fd)})
	}
	return o.run(begin)
}

// pacer is an open loop that runs.
type pacer struct {
	workers     []*worker
	sockets     []*rawConn // of the workers
	polled      []unix.PollFd
	from, until time.Time // requests that are due then are measured
	rate        float64
	due         []time.Time // of requests that were started and not yet flushed
	out         int         // requests that are measured and have no answer
}

// unanswered is how long answers are waited for once the last request is sent.
// A request without one has failed, and took that long at least.
const unanswered = 2 * time.Second

func (o *pacer) run(next time.Time) error {
	end := o.until.Add(unanswered)
	for at := o.choose(); ; {
		now := time.Now()
		if now.After(end) || !next.Before(o.until) && o.out == 0 {
			break
		}
		for next.Before(o.until) && !next.After(now) && o.workers[at].conn.room() {
			if err := o.start(o.workers[at], next); err != nil {
				return err
			}
			next = next.Add(time.Duration(-math.Log(1-rand.Float64()) / o.rate * float64(time.Second)))
			at = o.choose()
		}
		if err := o.flush(); err != nil {
			return err
		}
		wait := end
		if next.Before(o.until) && o.workers[at].conn.room() {
			wait = next
		}
		if err := o.poll(time.Until(wait)); err != nil {
			return err
		}
	}
	return o.giveUp()
}

// choose draws who sends next: each connection's requests are Poisson-distributed too.
func (o *pacer) choose() int { return rand.IntN(len(o.workers)) }

func (o *pacer) start(w *worker, due time.Time) error {
	if o.measured(due) {
		o.out++
		o.due = append(o.due, due)
	}
	return w.start(due)
}

func (o *pacer) measured(due time.Time) bool {
	return !due.Before(o.from) && due.Before(o.until)
}

// flush hands to the kernel what was started.
func (o *pacer) flush() error {
	for _, w := range o.workers {
		if err := w.conn.flush(); err != nil {
			return err
		}
	}
	now := time.Now()
	for _, due := range o.due {
		if err := record(o.workers[0].late, now.Sub(due)); err != nil {
			return err
		}
	}
	o.due = o.due[:0]
	return nil
}

// poll waits for answers and takes them in.
func (o *pacer) poll(wait time.Duration) error {
	for i, s := range o.sockets {
		o.polled[i].Events = unix.POLLIN
		if len(s.unsent) > 0 {
			o.polled[i].Events |= unix.POLLOUT
		}
	}
	timeout := unix.NsecToTimespec(int64(max(wait, 0)))
	if n, err := unix.Ppoll(o.polled, &timeout, nil); n <= 0 {
		if errors.Is(err, unix.EINTR) {
			return nil
		}
		return err
	}
	for i := range o.polled {
		if o.polled[i].Revents == 0 {
			continue
		}
		if err := errors.Join(o.sockets[i].push(), o.receive(o.workers[i])); err != nil {
			return err
		}
	}
	return nil
}

// receive takes in what has come on a connection.
func (o *pacer) receive(w *worker) error {
	if err := w.conn.fill(); errors.Is(err, unix.EAGAIN) {
		return nil
	} else if err != nil {
		return err
	}
	for now := time.Now(); w.conn.whole(); {
		r, err := w.conn.step()
		if err != nil {
			return err
		}
		if r == nil {
			continue
		}
		if o.measured(now) {
			w.served++
		}
		if !o.measured(r.due) {
			continue
		}
		o.out--
		w.judge(r)
		if err := record(w.latency, now.Sub(r.due)); err != nil {
			return err
		}
	}
	return nil
}

// giveUp counts what has no answer.
func (o *pacer) giveUp() error {
	for _, w := range o.workers {
		for _, due := range w.conn.due {
			if !o.measured(due) {
				continue
			}
			w.failures++
			if err := record(w.latency, time.Since(due)); err != nil {
				return err
			}
		}
	}
	return nil
}
