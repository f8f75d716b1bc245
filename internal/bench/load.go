package main

import (
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// load is one way to drive a server.
type load struct {
	Name        string
	Connections int
	Streams     int     // in flight per connection, closed loop
	Rate        float64 // requests a second over all connections, open loop; 0 means closed
	Half        bool    // Rate is still to be found: half of what a server can do
	Warm, Run   time.Duration
}

// result is what one run saw.
type result struct {
	Answered, Refused, Failed int64
	Elapsed                   time.Duration
	Latency                   *hdrhistogram.Histogram // microseconds
}

// drive loads a server and counts only what is answered after the warm-up.
// measured is called when counting begins and again when it ends.
func drive(target string, c call, l load, sources []messages, measured func()) (result, error) {
	var wg sync.WaitGroup
	workers := make([]*worker, l.Connections)
	errs := make([]error, l.Connections)
	for i := range workers {
		network, address := split(target)
		connection, err := dial(network, address, c.headers, sources[i].next())
		if err != nil {
			return result{}, err
		}
		defer connection.close()
		// A server that hangs must not hang this.
		if err := connection.nc.SetDeadline(time.Now().Add(l.Warm + l.Run + time.Minute)); err != nil {
			return result{}, err
		}
		workers[i] = &worker{conn: connection, messages: sources[i], latency: hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3)}
	}
	var phase atomic.Int32
	for i, w := range workers {
		wg.Go(func() { errs[i] = w.run(l, &phase) })
	}
	time.Sleep(l.Warm)
	measured()
	start := time.Now()
	phase.Store(counting)
	time.Sleep(l.Run)
	phase.Store(stopping)
	elapsed := time.Since(start)
	measured()
	wg.Wait()
	total := result{Elapsed: elapsed, Latency: hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3)}
	for _, w := range workers {
		total.Answered += w.answered
		total.Refused += w.refusals
		total.Failed += w.failures
		total.Latency.Merge(w.latency)
	}
	return total, errors.Join(errs...)
}

// The phases of a run.
const (
	warming = iota
	counting
	stopping
)

// worker drives one connection.
type worker struct {
	conn     *conn
	messages messages
	latency  *hdrhistogram.Histogram

	answered, refusals, failures int64
}

func (w *worker) run(l load, phase *atomic.Int32) error {
	if err := w.conn.flush(); err != nil {
		return err
	}
	if _, err := w.conn.next(); err != nil { // the warming request
		return err
	}
	if l.Rate > 0 {
		return w.open(l.Rate/float64(l.Connections), phase)
	}
	for range l.Streams {
		if err := w.start(time.Now()); err != nil {
			return err
		}
	}
	return w.closed(phase)
}

func (w *worker) start(due time.Time) error {
	return w.conn.send(w.messages.next(), due)
}

// closed starts a request for each one answered.
func (w *worker) closed(phase *atomic.Int32) error {
	for phase.Load() != stopping {
		if !w.conn.buffered() {
			if err := w.conn.flush(); err != nil {
				return err
			}
		}
		if err := w.receive(phase); err != nil {
			return err
		}
		if err := w.start(time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// open sends at Poisson-distributed times, whatever comes back.
func (w *worker) open(rate float64, phase *atomic.Int32) error {
	// Answers are read until the very end, since the sender may wait for a window.
	failed := make(chan error, 1)
	go func() {
		for {
			if err := w.receive(phase); phase.Load() == stopping && err != nil {
				failed <- nil
				return
			} else if err != nil {
				failed <- err
				return
			}
		}
	}()
	due := time.Now()
	for phase.Load() != stopping {
		due = due.Add(time.Duration(-math.Log(1-rand.Float64()) / rate * float64(time.Second)))
		if wait := time.Until(due); wait > 0 {
			if err := w.conn.flush(); err != nil {
				return err
			}
			time.Sleep(wait)
		}
		if err := w.start(due); err != nil {
			return err
		}
	}
	// What is still out is not waited for.
	if err := w.conn.nc.SetReadDeadline(time.Now()); err != nil {
		return err
	}
	return <-failed
}

func (w *worker) receive(phase *atomic.Int32) error {
	r, err := w.conn.next()
	if err != nil {
		return err
	}
	if phase.Load() != counting {
		return nil
	}
	w.answered++
	switch w.messages.judge(r) {
	case failed:
		w.failures++
	case refused:
		w.refusals++
	}
	return w.latency.RecordValue(max(1, time.Since(r.due).Microseconds()))
}
