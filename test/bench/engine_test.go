package bench

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// The answers' events are of one length, so that a reader finds each event's
// number and time by its offset.
const (
	model      = "m"
	eventBytes = 180
	eventHead  = `data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"`
	eventTail  = "\"},\"finish_reason\":null}]}\n\n"
	numberAt   = len(eventHead)
	numberLen  = 6
	stampAt    = numberAt + numberLen
	stampLen   = 19 // Unix nanoseconds
	finish     = "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
	done       = "data: [DONE]\n\n"
)

// ending is what follows the last token.
func ending(tokens int) string {
	return finish + fmt.Sprintf("data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[],"+
		"\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d}}\n\n", promptTokens, tokens, promptTokens+tokens) + done
}

const promptTokens = 500

// appendEvent appends token number i, as of now.
func appendEvent(b []byte, i int) []byte {
	start := len(b)
	b = append(b, eventHead...)
	b = fmt.Appendf(b, "%0*d%0*d", numberLen, i, stampLen, time.Now().UnixNano())
	for len(b)-start < eventBytes-len(eventTail) {
		b = append(b, '.')
	}
	return append(b, eventTail...)
}

// engineRole is an OpenAI-compatible engine that generates for nothing: as
// fast as it is read, or a token per interval, which the parent sets.
func engineRole(c *child) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var interval atomic.Int64
	c.tell = func(key, value string) {
		n, _ := strconv.ParseInt(value, 10, 64)
		interval.Store(n)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"object":"list","data":[{"id":"`+model+`","max_model_len":8192}]}`)
	})
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		tokens := maxTokens(body)
		if err != nil || tokens == 0 {
			http.Error(w, "no max_tokens", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		generate(r, w, tokens, time.Duration(interval.Load()))
	})
	srv := &http.Server{Handler: mux}
	go func() { <-c.ctx.Done(); srv.Close() }()
	c.ready(l.Addr().String())
	srv.Serve(l)
	return nil
}

// generate writes the events, and flushes each as an engine does.
func generate(r *http.Request, w http.ResponseWriter, tokens int, interval time.Duration) {
	rc := http.NewResponseController(w)
	var tick *time.Ticker
	if interval > 0 {
		tick = time.NewTicker(interval)
		defer tick.Stop()
	}
	var buf []byte
	for i := range tokens {
		if tick != nil && i > 0 {
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
		buf = appendEvent(buf[:0], i)
		if _, err := w.Write(buf); err != nil {
			return
		}
		if rc.Flush() != nil {
			return
		}
	}
	io.WriteString(w, ending(tokens))
}

// maxTokens finds the number without the cost of a parser, which is no part of
// what is measured.
func maxTokens(body []byte) int {
	_, after, ok := bytes.Cut(body, []byte(`"max_tokens":`))
	if !ok {
		return 0
	}
	digits := strings.TrimLeft(string(after[:min(len(after), 8)]), " ")
	if i := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		digits = digits[:i]
	}
	n, _ := strconv.Atoi(digits)
	return n
}
