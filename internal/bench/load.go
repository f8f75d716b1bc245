package main

import (
	"errors"
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
	Served                    int64 // answers that came while counting: what throughput and CPU are of
	Elapsed                   time.Duration
	Latency                   *hdrhistogram.Histogram // microseconds
	Late                      *hdrhistogram.Histogram // how late requests of an open loop were sent, likewise
}

// newHistogram counts microseconds up to a minute.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3)
}

func record(h *hdrhistogram.Histogram, d time.Duration) error {
	return h.RecordValue(min(max(d.Microseconds(), 1), h.HighestTrackableValue()))
}

// drive loads a server and counts what is answered after the warm-up or, in an
// open loop, what was due then.
// measured is called when counting begins and again when it ends.
func drive(target string, c call, l load, sources []messages, measured func()) (result, error) {
	workers := make([]*worker, l.Connections)
	for i := range workers {
		connection, err := dial(target, c.headers, sources[i].next())
		if err != nil {
			return result{}, err
		}
		w := &worker{conn: connection, messages: sources[i], latency: newHistogram(), late: newHistogram()}
		defer func() { w.conn.close() }()
		// A server that hangs must not hang this.
		if err := connection.nc.SetDeadline(time.Now().Add(l.Warm + l.Run + time.Minute)); err != nil {
			return result{}, err
		}
		workers[i] = w
	}
	elapsed, err := l.run(workers, measured)
	total := result{Elapsed: elapsed, Latency: newHistogram(), Late: newHistogram()}
	for _, w := range workers {
		total.Answered += w.answered
		total.Served += w.served
		total.Refused += w.refusals
		total.Failed += w.failures
		total.Latency.Merge(w.latency)
		total.Late.Merge(w.late)
	}
	return total, err
}

// run drives all connections.
func (l load) run(workers []*worker, measured func()) (elapsed time.Duration, err error) {
	errs := make([]error, len(workers)+1)
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() { errs[i] = w.warm() })
	}
	if wg.Wait(); errors.Join(errs...) != nil {
		return 0, errors.Join(errs...)
	}
	var phase atomic.Int32
	if l.Rate > 0 {
		wg.Go(func() { errs[0] = l.open(workers, time.Now()) })
	} else {
		for i, w := range workers {
			wg.Go(func() { errs[i] = w.closed(l.Streams, &phase) })
		}
	}
	time.Sleep(l.Warm)
	measured()
	start := time.Now()
	phase.Store(counting)
	time.Sleep(l.Run)
	phase.Store(stopping)
	elapsed = time.Since(start)
	measured()
	wg.Wait()
	return elapsed, errors.Join(errs...)
}

// The phases of a run.
const (
	warming = iota
	counting
	stopping
)

// worker drives one connection.
type worker struct {
	conn          *conn
	messages      messages
	latency, late *hdrhistogram.Histogram

	answered, refusals, failures, served int64
}

// warm has the first request answered.
func (w *worker) warm() error {
	if err := w.conn.flush(); err != nil {
		return err
	}
	_, err := w.conn.next()
	return err
}

func (w *worker) start(due time.Time) error {
	return w.conn.send(w.messages.next(), due)
}

// closed keeps a number of requests in flight.
func (w *worker) closed(streams int, phase *atomic.Int32) error {
	for missing := streams; phase.Load() != stopping; missing++ {
		for ; missing > 0 && w.conn.room(); missing-- {
			if err := w.start(time.Now()); err != nil {
				return err
			}
		}
		if !w.conn.whole() {
			if err := w.conn.flush(); err != nil {
				return err
			}
		}
		r, err := w.conn.next()
		if err != nil {
			return err
		}
		if phase.Load() != counting {
			continue
		}
		w.served++
		w.judge(r)
		if err := record(w.latency, time.Since(r.due)); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) judge(r *reply) {
	w.answered++
	switch w.messages.judge(r) {
	case failed:
		w.failures++
	case refused:
		w.refusals++
	}
}
