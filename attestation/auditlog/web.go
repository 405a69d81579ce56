package auditlog

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
)

// Web is a store's public part, read over HTTPS. It is a Source.
type Web struct{ objects }

// NewWeb reads from base, such as "https://host.example/". Transport, time
// limits and roots are the client's; plain HTTP is allowed, since nothing that
// is read is believed, and tells whoever listens what is read.
func NewWeb(base string, client *http.Client) (*Web, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("log address: %w", err)
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("log address: got %.200q, want https://HOST/PATH", base)
	}
	prefix := strings.TrimSuffix(u.String(), "/") + "/"
	return &Web{objects{func(ctx context.Context, path string, max int) ([]byte, error) {
		return fetch(ctx, client, prefix+path, max)
	}}}, nil
}

func fetch(ctx context.Context, client *http.Client, address string, max int) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, fmt.Errorf("%s: %w", address, fs.ErrNotExist)
	default:
		return nil, fmt.Errorf("%s: got %s", address, res.Status)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, int64(max)+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	if len(b) > max {
		return nil, fmt.Errorf("%s: size: got more than %d bytes", address, max)
	}
	return b, nil
}
