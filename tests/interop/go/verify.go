// standardwebhooks reads real deliveries, given one to a line as JSON with headers and body.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

type delivery struct {
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

func main() {
	webhook, err := standardwebhooks.NewWebhook(os.Getenv("TASKHOOK_SECRET"))
	if err != nil {
		log.Fatal(err)
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var given delivery
		if err := json.Unmarshal(lines.Bytes(), &given); err != nil {
			log.Fatal(err)
		}
		headers := http.Header{}
		for name, value := range given.Headers {
			headers.Set(name, value)
		}
		if err := webhook.Verify([]byte(given.Body), headers); err != nil {
			log.Fatal(err)
		}
		if webhook.Verify([]byte(given.Body+" "), headers) == nil {
			log.Fatal("an altered body was taken")
		}
		var event struct{ ID, Type string }
		if err := json.Unmarshal([]byte(given.Body), &event); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("{\"id\": %q, \"type\": %q}\n", event.ID, event.Type)
	}
}
