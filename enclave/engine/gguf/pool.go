package gguf

import (
	"sync"
	"sync/atomic"
)

// pool runs loops on several threads. Its workers block on a channel between
// loops and never spin, so an idle engine costs nothing and a busy neighbour
// slows it by no more than its share.
type pool struct {
	threads int
	jobs    chan *job
}

// job is one loop over items, handed out grain by grain.
type job struct {
	body         func(worker, lo, hi int)
	items, grain int
	next         atomic.Int64
	left         sync.WaitGroup
}

func (j *job) work(worker int) {
	for {
		hi := int(j.next.Add(int64(j.grain)))
		lo := hi - j.grain
		if lo >= j.items {
			return
		}
		j.body(worker, lo, min(hi, j.items))
	}
}

func newPool(threads int) *pool {
	p := &pool{threads: threads, jobs: make(chan *job, threads)}
	for w := 1; w < threads; w++ {
		go func() {
			for j := range p.jobs {
				j.work(w)
				j.left.Done()
			}
		}()
	}
	return p
}

// minParallel is the work, in multiply-adds, below which waking another
// thread (some microseconds) costs more than it saves.
const minParallel = 1 << 20

// run calls body over [0, items) and returns when all of it is done. cost is
// the work of one item in multiply-adds. One run at a time.
func (p *pool) run(items, cost int, body func(worker, lo, hi int)) {
	if p.threads == 1 || items < 2 || items*cost < minParallel {
		body(0, 0, items)
		return
	}
	helpers := min(p.threads, items, items*cost/(minParallel/2)) - 1
	j := &job{body: body, items: items, grain: max(1, items/(4*(helpers+1)))}
	j.left.Add(helpers)
	for range helpers {
		p.jobs <- j
	}
	j.work(0)
	j.left.Wait()
}

func (p *pool) close() { close(p.jobs) }
