package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

// ask sends one question to the proxy as any client would, and prints the
// answer on stdout as it comes.
func ask(ctx context.Context, d layout, text string, stdout, stderr io.Writer) error {
	var dn devnet
	if err := readJSON(d.devnetJSON(), &dn); err != nil {
		return err
	}
	token, err := os.ReadFile(dn.TokenFile)
	if err != nil {
		return err
	}
	var models struct{ Data []struct{ ID string } }
	if err := call(ctx, dn, token, "GET", "/models", nil, func(r *http.Response) error { return json.NewDecoder(r.Body).Decode(&models) }); err != nil {
		return err
	}
	if len(models.Data) == 0 {
		return errors.New("no model is served")
	}
	body, err := json.Marshal(map[string]any{
		"model": models.Data[0].ID, "stream": true, "temperature": 0, "max_tokens": 256,
		"messages": []map[string]string{{"role": "user", "content": text}},
	})
	if err != nil {
		return err
	}
	return call(ctx, dn, token, "POST", "/chat/completions", body, func(r *http.Response) error {
		if err := printStream(r.Body, stdout); err != nil {
			return err
		}
		for _, h := range []string{"X-Cocoon-Worker", "X-Cocoon-Cost", "X-Cocoon-Receipt"} {
			v := r.Header.Get(h)
			if v == "" {
				v = r.Trailer.Get(h)
			}
			if v != "" {
				fmt.Fprintf(stderr, "%s: %s\n", strings.ToLower(h), v)
			}
		}
		return nil
	})
}

func call(ctx context.Context, dn devnet, token []byte, method, path string, body []byte, use func(*http.Response) error) error {
	req, err := http.NewRequestWithContext(ctx, method, dn.BaseURL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, b)
	}
	return use(resp)
}

// printStream writes the text of a chat completion's events.
func printStream(r io.Reader, w io.Writer) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		data, ok := strings.CutPrefix(sc.Text(), "data: ")
		if !ok {
			continue
		}
		if data == "[DONE]" {
			io.Copy(io.Discard, r) // trailers come after the end
			_, err := fmt.Fprintln(w)
			return err
		}
		var e struct {
			Choices []struct{ Delta struct{ Content string } }
			Error   *struct{ Message string }
		}
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return fmt.Errorf("event: %w", err)
		}
		if e.Error != nil {
			return errors.New(e.Error.Message)
		}
		for _, c := range e.Choices {
			fmt.Fprint(w, c.Delta.Content)
		}
	}
	if err := sc.Err(); err != nil {
		return err
	}
	return errors.New("the stream ended before [DONE]")
}
