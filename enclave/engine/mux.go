package engine

import (
	"context"
	"fmt"
	"slices"
)

// Mux is several engines behind one: each request goes to the engine that has
// its model. The zero value serves nothing.
type Mux struct {
	models []Model
	byName map[string]Engine
}

// NewMux serves the models of engines, in their order. Two models of one name
// are refused.
func NewMux(engines ...Engine) (*Mux, error) {
	m := &Mux{byName: make(map[string]Engine)}
	for _, e := range engines {
		for _, model := range e.Models() {
			if model.Name == "" {
				return nil, fmt.Errorf("engine: model name: got none")
			}
			if _, ok := m.byName[model.Name]; ok {
				return nil, fmt.Errorf("engine: model %q: served by two engines", model.Name)
			}
			m.byName[model.Name] = e
			m.models = append(m.models, model)
		}
	}
	return m, nil
}

// Models lists the models of all engines.
func (m *Mux) Models() []Model { return slices.Clone(m.models) }

// Run passes the request on, or fails with a 404 RequestError.
func (m *Mux) Run(ctx context.Context, req Request, sink Sink) (Result, error) {
	e, ok := m.byName[req.Model]
	if !ok {
		return Result{}, &RequestError{Status: 404, Type: "invalid_request_error", Code: "model_not_found", Param: "model", Message: "model: not loaded here"}
	}
	return e.Run(ctx, req, sink)
}
