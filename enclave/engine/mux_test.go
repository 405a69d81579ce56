package engine_test

import (
	"context"
	"errors"
	"testing"

	"cocoon/enclave/engine"

	"github.com/google/go-cmp/cmp"
)

type fixed struct{ models []engine.Model }

func (f fixed) Models() []engine.Model { return f.models }

func (f fixed) Run(_ context.Context, req engine.Request, _ engine.Sink) (engine.Result, error) {
	return engine.Result{FinishReason: "by " + f.models[0].Name + " for " + req.Model}, nil
}

func TestMux(t *testing.T) {
	a := fixed{[]engine.Model{{Name: "a"}, {Name: "b"}}}
	c := fixed{[]engine.Model{{Name: "c"}}}
	m, err := engine.NewMux(a, c)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]engine.Model{{Name: "a"}, {Name: "b"}, {Name: "c"}}, m.Models()); diff != "" {
		t.Error(diff)
	}
	for model, want := range map[string]string{"a": "by a for a", "b": "by a for b", "c": "by c for c"} {
		res, err := m.Run(t.Context(), engine.Request{Model: model}, nil)
		if err != nil || res.FinishReason != want {
			t.Errorf("%s: got %q, %v; want %q", model, res.FinishReason, err, want)
		}
	}
	var re *engine.RequestError
	if _, err := m.Run(t.Context(), engine.Request{Model: "d"}, nil); !errors.As(err, &re) || re.Status != 404 {
		t.Errorf("unknown model: got %v, want a 404 RequestError", err)
	}
	if _, err := engine.NewMux(a, a); err == nil {
		t.Error("two engines serve one name: got no error")
	}
	if _, err := engine.NewMux(fixed{[]engine.Model{{}}}); err == nil {
		t.Error("a model without a name: got no error")
	}
}
