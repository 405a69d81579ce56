package host

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// maxServed bounds an object that is served: a bundle is the largest.
const maxServed = 8 << 20

// Handler serves the public part of the store in dir, read-only: checkpoints,
// tiles, bundles and boot records, under the paths they have in the folder.
// Receipts, vouchers and everything else do not exist for it.
func Handler(dir string) (http.Handler, error) {
	root, err := os.OpenRoot(dir) // symbolic links cannot lead out of it
	if err != nil {
		return nil, err
	}
	const id = `[0-9a-f]{64}`
	const tile = `(?:x[0-9]{3}/){0,5}[0-9]{3}(?:\.p/[1-9][0-9]{0,2})?`
	return &handler{
		root:      root,
		immutable: regexp.MustCompile(`^(?:logs/` + id + `/tile/(?:[0-9]|[1-5][0-9]|entries)/` + tile + `|bundles/` + id + `\.cbor|boots/[1-9][0-9]{0,18}\.cbor)$`),
		current:   regexp.MustCompile(`^logs/` + id + `/checkpoint$`),
	}, nil
}

type handler struct {
	root               *os.Root
	immutable, current *regexp.Regexp
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/")
	switch {
	case h.immutable.MatchString(path):
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	case h.current.MatchString(path):
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
	default:
		http.NotFound(w, r)
		return
	}
	f, err := h.root.Open(path)
	if err == nil {
		defer f.Close()
		err = serveFile(w, r, f)
	}
	if err != nil {
		w.Header().Del("Cache-Control")
		http.NotFound(w, r)
	}
}

func serveFile(w http.ResponseWriter, r *http.Request, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > maxServed {
		return fs.ErrNotExist
	}
	w.Header().Set("Content-Length", strconv.FormatInt(info.Size(), 10))
	if r.Method == http.MethodGet {
		io.CopyN(w, f, info.Size()) // a client that went away is no error of ours
	}
	return nil
}

// ServeConfig makes a server of a store's public part.
type ServeConfig struct {
	Dir      string
	Listener net.Listener
	TLS      *tls.Config // nil serves plain HTTP, for behind a proxy that ends TLS
}

// Serve serves until ctx ends, and closes the listener.
func Serve(ctx context.Context, c ServeConfig) error {
	h, err := Handler(c.Dir)
	if err != nil {
		c.Listener.Close()
		return err
	}
	srv := &http.Server{
		Handler:           h,
		TLSConfig:         c.TLS,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
	}
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	})
	defer stop()
	if c.TLS != nil {
		err = srv.ServeTLS(c.Listener, "", "")
	} else {
		err = srv.Serve(c.Listener)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
