package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"cocoon/attestation/channel"
	"cocoon/enclave/api"
	"cocoon/proxy/ledger"
	"cocoon/proxy/route"
	"cocoon/proxy/session"
)

// apiError is an error in the shape of OpenAI's.
type apiError struct {
	Status  int
	Type    string
	Code    string
	Param   string
	Message string

	retryAfter string // seconds; empty for none
	final      bool   // x-should-retry: false
}

func (e *apiError) Error() string { return fmt.Sprintf("%d %s: %s", e.Status, e.Code, e.Message) }

// body is {"error":{"message","type","param","code"}}, where param and code
// are null if empty.
func (e *apiError) body() []byte {
	null := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	b, err := json.Marshal(map[string]any{"error": map[string]any{
		"message": e.Message, "type": e.Type, "param": null(e.Param), "code": null(e.Code),
	}})
	if err != nil {
		return []byte(`{"error":{"message":"internal error","type":"server_error","param":null,"code":null}}`)
	}
	return b
}

// name is the code as a log may hold it. A worker's own could be any text.
func (e *apiError) name() string {
	if len(e.Code) > 64 || strings.Trim(e.Code, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
		return "unnamed"
	}
	return e.Code
}

// fail answers with an error object.
func (q *exchange) fail(err error) {
	e := asAPIError(err)
	h := q.w.Header()
	h.Set("Content-Type", "application/json")
	if e.retryAfter != "" {
		h.Set("Retry-After", e.retryAfter)
	}
	if e.final {
		h.Set("X-Should-Retry", "false")
	}
	q.status = e.Status
	q.note = append(q.note, "error", e.name())
	q.w.WriteHeader(e.Status)
	q.w.Write(append(e.body(), '\n'))
}

// asAPIError says what went wrong to an SDK. What every error here says was
// written by this program or bounded by it, and quotes no prompt.
func asAPIError(err error) *apiError {
	var own *apiError
	var job *channel.JobError
	var model *route.ModelError
	var none *route.NoWorkerError
	var credit *ledger.CreditError
	var unpaid *session.ChannelError
	var unknown *ledger.UnknownVoucherError
	var refusal *api.RefusalError
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &job):
		return &apiError{Status: job.Status, Type: job.Type, Code: job.Code, Param: job.Param, Message: job.Message}
	case errors.As(err, &tooLarge):
		return &apiError{Status: 413, Type: "invalid_request_error", Code: "request_too_large", Message: fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit)}
	case errors.As(err, &model):
		return &apiError{Status: 404, Type: "invalid_request_error", Code: "model_not_found", Param: "model", Message: err.Error()}
	case errors.As(err, &credit), errors.As(err, &unpaid), errors.As(err, &unknown):
		return &apiError{Status: 402, Type: "insufficient_quota", Code: "insufficient_quota", Message: err.Error(), final: true}
	case errors.As(err, &none):
		return &apiError{Status: 503, Type: "server_error", Code: "no_verified_worker", Message: err.Error(), retryAfter: "2"}
	case session.Misbehaves(err):
		return &apiError{Status: 502, Type: "server_error", Code: "worker_misbehaved", Message: err.Error()}
	case session.Unreached(err), errors.As(err, &refusal):
		return &apiError{Status: 502, Type: "server_error", Code: "worker_failed", Message: err.Error()}
	}
	return &apiError{Status: 500, Type: "server_error", Code: "internal_error", Message: err.Error()}
}
