package route

import (
	"context"
	"slices"
)

// Settle waits until every worker was tried once, or ctx ends, and returns how
// they stand.
func (r *Router) Settle(ctx context.Context) []Status {
	for {
		changed := r.wait()
		list := r.Workers()
		if !slices.ContainsFunc(list, func(s Status) bool { return s.State == Connecting }) {
			return list
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return list
		}
	}
}
