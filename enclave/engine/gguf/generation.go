package gguf

import (
	"context"

	"cocoon/enclave/engine"
)

// generation is one answer being made.
type generation struct {
	*Engine
	ctx     context.Context
	sink    engine.Sink
	limit   int
	seq     *sequence
	sampler *sampler
	out     textOut
	answer  answer
	usage   engine.Usage
}

// run feeds the prompt, then token after token, and writes the answer. The
// sequence has left the scheduler when it returns.
func (g *generation) run(feed []int32) (finish string, err error) {
	stepped := true
	defer func() {
		if stepped {
			g.sched.leave(g.seq)
		}
	}()
	if err := g.sink.Start(g.usage.Prompt, g.usage.Cached); err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		if err := g.sink.Grant(g.ctx, n); err != nil {
			return "", err
		}
		if err := g.sched.step(g.seq, feed); err != nil {
			stepped = false
			return "", err
		}
		if n == 1 {
			if err := g.answer.open(g.usage); err != nil {
				return "", err
			}
		}
		token := g.sampler.next(g.seq.logits)
		if token == g.chat.end || token == g.tok.eos {
			return g.finish("stop")
		}
		g.usage.Completion = n
		text, stopped := g.out.push(g.tok.text[token])
		if err := g.answer.add(text, g.usage); err != nil {
			return "", err
		}
		if stopped {
			return "stop", g.answer.close("stop", g.usage)
		}
		if n == g.limit {
			return g.finish("length")
		}
		feed = []int32{token}
	}
}

// finish writes what text was held back, and the end.
func (g *generation) finish(reason string) (string, error) {
	text, stopped := g.out.flush()
	if stopped {
		reason = "stop"
	}
	if err := g.answer.add(text, g.usage); err != nil {
		return "", err
	}
	return reason, g.answer.close(reason, g.usage)
}
