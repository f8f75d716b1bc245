package fastgrpc

import (
	"sync"
	"time"
)

// A pool is the bounded set of goroutines that run what may wait. They are
// started as needed and stay a while, because a goroutine that already has its
// stack is cheaper than a new one.
type pool struct {
	jobs chan func() // unbuffered: a send succeeds only if a goroutine is idle
	quit chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	busy  int // at most limit
	limit int
}

func newPool(limit int) *pool {
	return &pool{jobs: make(chan func()), quit: make(chan struct{}), limit: limit}
}

// run has job run by some goroutine and reports whether there was one left.
func (p *pool) run(job func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy == p.limit {
		return false
	}
	p.busy++
	select {
	case p.jobs <- job:
		return true
	default:
	}
	p.wg.Add(1)
	go p.work(job)
	return true
}

func (p *pool) work(job func()) {
	defer p.wg.Done()
	idle := time.NewTimer(workerIdle)
	defer idle.Stop()
	for job != nil {
		job()
		p.mu.Lock()
		p.busy--
		p.mu.Unlock()
		idle.Reset(workerIdle)
		select {
		case job = <-p.jobs:
		case <-idle.C:
			job = nil
		case <-p.quit:
			job = nil
		}
	}
}

// waiting is how many jobs are being run.
func (p *pool) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.busy
}
