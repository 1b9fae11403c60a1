// Receive events with Go alone: TASKHOOK_SECRET=whsec_... PORT=9000 go run receiver.go
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	tolerance = 300 * time.Second
	largest   = 4 << 20
)

type event struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	Data struct {
		ID     string `json:"id"`
		Result struct {
			Outputs []struct {
				URL string `json:"url"`
			} `json:"outputs"`
		} `json:"result"`
	} `json:"data"`
}

// verify says whether a delivery is Taskhook's and fresh (Standard Webhooks).
func verify(key []byte, h http.Header, body []byte) bool {
	at, err := strconv.ParseInt(h.Get("webhook-timestamp"), 10, 64)
	if err != nil || time.Since(time.Unix(at, 0)).Abs() > tolerance {
		return false
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.%s", h.Get("webhook-id"), at, body)
	expected := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for _, signature := range strings.Fields(h.Get("webhook-signature")) {
		if hmac.Equal([]byte(signature), []byte(expected)) {
			return true
		}
	}
	return false
}

// keep says whether the event is new: it may come twice, and the second file of that name is refused.
func keep(directory string, e event, body []byte) (bool, error) {
	file, err := os.OpenFile(filepath.Join(directory, e.ID+".json"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = file.Write(body)
	return true, errors.Join(err, file.Close())
}

func receive(key []byte, directory string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, largest))
		if err != nil || !verify(key, r.Header, body) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		var e event
		if err := json.Unmarshal(body, &e); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		isNew, err := keep(directory, e, body)
		if err != nil {
			log.Print(err)
			w.WriteHeader(http.StatusInternalServerError) // Taskhook tries again
			return
		}
		w.WriteHeader(http.StatusNoContent)
		if isNew && e.Type == "task.succeeded" {
			log.Print(e.Data.ID, " ", e.Data.Result.Outputs[0].URL)
		}
	}
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func main() {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(strings.TrimSpace(os.Getenv("TASKHOOK_SECRET")), "whsec_"))
	if err != nil || len(key) < 16 {
		log.Fatal("TASKHOOK_SECRET must be the whsec_... of the endpoint")
	}
	directory := setting("EVENTS_DIR", "events")
	if err := os.MkdirAll(directory, 0o700); err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+setting("PORT", "9000"), receive(key, directory)))
}
