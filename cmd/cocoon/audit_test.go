package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// A log's host must not have the auditor's machine call somebody else.
func TestLogClientStaysWithItsHost(t *testing.T) {
	called := false
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }))
	defer inner.Close()
	var log *httptest.Server
	log = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, inner.URL, http.StatusFound)
		case "/here":
			http.Redirect(w, r, log.URL+"/end", http.StatusFound)
		}
	}))
	defer log.Close()
	c := logClient()
	defer c.CloseIdleConnections()
	if res, err := c.Get(log.URL + "/away"); err == nil {
		res.Body.Close()
		t.Error("a redirect to another host was followed")
	}
	if called {
		t.Error("another host was called")
	}
	res, err := c.Get(log.URL + "/here")
	if err != nil {
		t.Fatalf("within the host: %v", err)
	}
	res.Body.Close()
}

// Liteservers that stand still show nothing of what has happened since.
func TestChainThatStandsStill(t *testing.T) {
	now := time.Unix(1_790_000_000, 0)
	for age, ok := range map[time.Duration]bool{0: true, time.Hour: true, time.Hour + time.Second: false, -time.Minute: true} {
		err := recent(now.Add(-age), now)
		if (err == nil) != ok {
			t.Errorf("%s old: got %v", age, err)
		}
		var e *exitError
		if err != nil && (!errors.As(err, &e) || e.code != exitNetwork) {
			t.Errorf("%s old: got %v, want a network error", age, err)
		}
	}
}
