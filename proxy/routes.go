package proxy

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"cocoon/attestation"
	"cocoon/attestation/auditlog"
	"cocoon/proxy/ledger"
	"cocoon/proxy/route"
)

// dispatch finds the handler. Every path has one method.
func (q *exchange) dispatch() {
	path := q.r.URL.Path
	serve, method := q.notFound, q.r.Method
	switch {
	case path == "/v1/chat/completions":
		serve, method = q.chat, http.MethodPost
	case path == "/v1/models":
		serve, method = q.models, http.MethodGet
	case strings.HasPrefix(path, "/v1/models/"):
		serve, method = q.model, http.MethodGet
	case path == "/v1/attestation":
		serve, method = q.attestation, http.MethodGet
	case strings.HasPrefix(path, "/v1/receipts/"):
		serve, method = q.receipt, http.MethodGet
	case path == "/healthz":
		serve, method = q.health, http.MethodGet
	}
	if q.r.Method != method {
		q.w.Header().Set("Allow", method)
		q.fail(&apiError{Status: 405, Type: "invalid_request_error", Code: "method_not_allowed", Message: "want " + method})
		return
	}
	serve()
}

func (q *exchange) notFound() {
	q.fail(&apiError{Status: 404, Type: "invalid_request_error", Code: "unknown_url", Message: "this proxy has no such path"})
}

// reply answers with a JSON document.
func (q *exchange) reply(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		q.fail(err)
		return
	}
	q.w.Header().Set("Content-Type", "application/json")
	q.status = http.StatusOK
	_, _ = q.w.Write(append(b, '\n'))
}

func (q *exchange) health() { q.reply(map[string]string{"status": "ok"}) }

// modelObject is OpenAI's, with what it costs where.
type modelObject struct {
	ID      string  `json:"id"`
	Object  string  `json:"object"`
	Created int64   `json:"created"`
	OwnedBy string  `json:"owned_by"`
	Workers []offer `json:"cocoon_workers"`
}

type offer struct {
	WorkerID    attestation.Address `json:"worker_id"`
	WeightsRoot string              `json:"weights_root"`
	Prices      attestation.Prices  `json:"nano_per_million_tokens"`
}

func modelFrom(m route.Model) modelObject {
	o := modelObject{ID: m.Name, Object: "model", OwnedBy: "cocoon"}
	for _, w := range m.Workers {
		o.Workers = append(o.Workers, offer{w.WorkerID, w.WeightsRoot, w.Prices})
	}
	return o
}

func (q *exchange) models() {
	list := []modelObject{}
	for _, m := range q.s.cfg.Router.Models() {
		list = append(list, modelFrom(m))
	}
	q.reply(map[string]any{"object": "list", "data": list})
}

func (q *exchange) model() {
	name := strings.TrimPrefix(q.r.URL.Path, "/v1/models/")
	for _, m := range q.s.cfg.Router.Models() {
		if m.Name == name {
			q.reply(modelFrom(m))
			return
		}
	}
	q.fail(&apiError{Status: 404, Type: "invalid_request_error", Code: "model_not_found", Param: "model", Message: "no verified worker has a model of that name"})
}

// workerObject is one worker's evidence and how it was judged.
type workerObject struct {
	Endpoint string               `json:"endpoint"`
	State    route.State          `json:"state"`
	Reason   string               `json:"reason,omitempty"`
	WorkerID *attestation.Address `json:"worker_id"`
	*attestation.Result
	Bundle  string         `json:"bundle,omitempty"` // base64
	Channel *channelObject `json:"channel,omitempty"`
}

type channelObject struct {
	Address attestation.Address `json:"address"`
	Limit   uint64              `json:"limit_nano"`
	Used    uint64              `json:"used_nano"`
}

func (q *exchange) attestation() {
	list := []workerObject{}
	for _, w := range q.s.cfg.Router.Workers() {
		o := workerObject{Endpoint: w.Endpoint, State: w.State, Reason: w.Reason, Result: w.Result, Bundle: base64.StdEncoding.EncodeToString(w.Bundle)}
		if !w.WorkerID.IsZero() {
			o.WorkerID = &w.WorkerID
		}
		if !w.Channel.IsZero() {
			o.Channel = &channelObject{w.Channel, w.Limit, w.Used}
		}
		list = append(list, o)
	}
	q.reply(map[string]any{"object": "list", "data": list})
}

// receiptObject is a receipt in words, with the signed bytes.
type receiptObject struct {
	JobID        string              `json:"job_id"`
	WorkerID     attestation.Address `json:"worker_id"`
	Channel      attestation.Address `json:"channel"`
	LogID        string              `json:"log_id"`
	Index        uint64              `json:"index"`
	Model        attestation.Model   `json:"model"`
	Usage        attestation.Usage   `json:"usage"`
	Prices       attestation.Prices  `json:"nano_per_million_tokens"`
	Cost         uint64              `json:"cost_nano"`
	Started      int64               `json:"started_ms"`
	Finished     int64               `json:"finished_ms"`
	FinishReason string              `json:"finish_reason"`
	Status       auditlog.Status     `json:"status"`
	COSE         string              `json:"cose"` // base64
}

// receipt answers what X-Cocoon-Receipt names.
func (q *exchange) receipt() {
	id, err := hex.DecodeString(strings.TrimPrefix(q.r.URL.Path, "/v1/receipts/"))
	if err != nil || len(id) != 16 {
		q.notFound()
		return
	}
	// The job may have ended in this instant.
	if err := q.s.cfg.Ledger.Flush(q.r.Context()); err != nil {
		q.fail(err)
		return
	}
	stored, err := q.s.cfg.Ledger.Receipt(q.r.Context(), [16]byte(id))
	if errors.Is(err, ledger.ErrNoReceipt) {
		q.fail(&apiError{Status: 404, Type: "invalid_request_error", Code: "receipt_not_found", Message: "no receipt of that job"})
		return
	} else if err != nil {
		q.fail(err)
		return
	}
	r, err := auditlog.ParseReceipt(stored.COSE)
	if err != nil {
		q.fail(err)
		return
	}
	q.reply(receiptObject{
		JobID: hex.EncodeToString(r.JobID[:]), WorkerID: r.WorkerID, Channel: r.Channel, LogID: hex.EncodeToString(r.LogID[:]), Index: r.Index,
		Model: r.Model, Usage: r.Usage, Prices: r.Prices, Cost: r.Cost, Started: r.Started, Finished: r.Finished,
		FinishReason: r.FinishReason, Status: r.Status, COSE: base64.StdEncoding.EncodeToString(stored.COSE),
	})
}
