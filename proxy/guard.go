package proxy

import (
	"crypto/sha256"
	"crypto/subtle"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// guard applies DESIGN section 8.6 to a request, before its path is looked at:
// a web page, a rebound DNS name or another user learns nothing but a refusal.
func (s *server) guard(r *http.Request) error {
	if !s.hostAllowed(r.Host) {
		return &apiError{Status: 403, Type: "permission_error", Code: "host_not_allowed", Message: "the Host header must name this machine: use 127.0.0.1 or localhost"}
	}
	// A browser always says where a cross-origin call comes from.
	for _, o := range r.Header.Values("Origin") {
		if !slices.Contains(s.cfg.AllowedOrigins, o) {
			return &apiError{Status: 403, Type: "permission_error", Code: "origin_not_allowed", Message: "this Origin is not on the list of allowed ones"}
		}
	}
	if !s.authorized(r.Header) {
		return &apiError{Status: 401, Type: "authentication_error", Code: "invalid_api_key", Message: "the API key is not this installation's token"}
	}
	return nil
}

func (s *server) hostAllowed(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	} else {
		name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	}
	if strings.EqualFold(name, "localhost") || slices.Contains(s.cfg.AllowedHosts, name) {
		return true
	}
	a, err := netip.ParseAddr(name)
	return err == nil && a.IsLoopback() && !a.Is4In6() && a.Zone() == ""
}

// authorized compares digests, so that neither length nor content of the token
// shows in the time it takes.
func (s *server) authorized(h http.Header) bool {
	got := h.Get("X-Api-Key")
	if auth := h.Get("Authorization"); auth != "" {
		scheme, token, _ := strings.Cut(auth, " ")
		if !strings.EqualFold(scheme, "bearer") {
			return false
		}
		got = token
	}
	sum := sha256.Sum256([]byte(got))
	return subtle.ConstantTimeCompare(sum[:], s.token[:]) == 1
}

// isJSON: a form or plain text is what a web page can send without asking.
func isJSON(h http.Header) bool {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && kind == "application/json"
}
