// Boots one component with Go's net/http as it is.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
)

func send(method, path, body string) []byte {
	request, err := http.NewRequest(method, os.Getenv("GATE_URL")+path, bytes.NewBufferString(body))
	if err != nil {
		panic(err)
	}
	request.Header.Set("X-API-Key", os.Getenv("GATE_KEY"))
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		panic(err)
	}
	fmt.Println(response.StatusCode, response.Proto, string(answer))
	return answer
}

func main() {
	var packet struct {
		Startup struct {
			ID string `json:"startup_id"`
		} `json:"startup"`
	}
	if err := json.Unmarshal(send("POST", "/v1/bootstrap", `{"component_key": "indexer_1"}`), &packet); err != nil {
		panic(err)
	}
	send("POST", "/v1/startup/ready", `{"startup_id": "`+packet.Startup.ID+`", "build_version": "1"}`)
	send("GET", "/health", "")
}
