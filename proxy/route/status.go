package route

import (
	"errors"
	"slices"
	"strings"

	"cocoon/attestation"
	"cocoon/proxy/session"
)

// Model is a model that verified workers have.
type Model struct {
	Name    string
	Workers []Offer
}

// Offer is one worker's.
type Offer struct {
	WorkerID    attestation.Address
	WeightsRoot string
	Prices      attestation.Prices // nano per million tokens
}

// Models lists what the verified workers have, by name.
func (r *Router) Models() []Model {
	var out []Model
	for _, w := range r.workers {
		s, _ := w.usable()
		if s == nil {
			continue
		}
		for _, m := range s.Verified().Keyset().Models {
			p, ok := s.Price(m.Name)
			if !ok {
				continue
			}
			i := slices.IndexFunc(out, func(o Model) bool { return o.Name == m.Name })
			if i < 0 {
				i = len(out)
				out = append(out, Model{Name: m.Name})
			}
			out[i].Workers = append(out[i].Workers, Offer{s.WorkerID(), m.WeightsRoot, p})
		}
	}
	slices.SortFunc(out, func(a, b Model) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// State says what a worker is good for.
type State string

// The states of a worker.
const (
	Ready      State = "ready"      // verified, and gets jobs
	Connecting State = "connecting" // not known yet
	Refused    State = "refused"    // its evidence was refused
	Lost       State = "lost"       // cannot be reached
	Benched    State = "benched"    // broke the protocol
)

// Status is one worker as it stands.
type Status struct {
	Endpoint string
	State    State
	Reason   string              // why it is not ready
	WorkerID attestation.Address // zero if not known
	Result   *attestation.Result // of the last verification; nil if there was none
	Bundle   []byte              // that it was made on
	Channel  attestation.Address // that pays it; zero if none yet
	Limit    uint64              // nano that the channel can pay
	Used     uint64              // nano of that which is spent or allocated
}

// Workers lists every worker the router knows.
func (r *Router) Workers() []Status {
	out := make([]Status, 0, len(r.workers))
	for _, w := range r.workers {
		out = append(out, w.status())
	}
	return out
}

func (w *worker) status() Status {
	st := Status{Endpoint: w.endpoint.Address, WorkerID: w.endpoint.WorkerID, State: Ready}
	usable, connecting := w.usable()
	w.mu.Lock()
	s, err, benched := w.session, w.err, w.benched
	w.mu.Unlock()
	if s != nil {
		st.WorkerID = s.WorkerID()
		st.Result, st.Bundle = s.Evidence()
		st.Channel, st.Limit, st.Used, _ = s.Channel()
	}
	var refused *session.NotVerifiedError
	switch {
	case usable != nil:
		return st
	case w.r.cfg.Session.Now().Before(benched):
		st.State = Benched
	case errors.As(err, &refused):
		st.State, st.Result, st.Bundle = Refused, refused.Result, refused.Bundle
		if !refused.WorkerID.IsZero() {
			st.WorkerID = refused.WorkerID
		}
	case connecting:
		st.State = Connecting
	default:
		st.State = Lost
	}
	if err == nil {
		err = w.why()
	}
	if err != nil {
		st.Reason = err.Error()
	}
	return st
}
