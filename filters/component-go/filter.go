// A token check as a component in Go: without the token 401, with it the request goes on with x-client, and the service's JSON
// gets a field. Configured with {"token": "...", "client": "..."}.

package main

import (
	"encoding/json"
	"errors"
	"strings"

	"tokencheck/penstock"
)

// An instance has one configuration for life.
var wanted, client = "", "unknown"

// Streams whose answer is JSON: instances serve many at once.
var answeringJSON = map[uint64]bool{}

func init() {
	penstock.Filter.Name, penstock.Filter.Version = "token-check", "1.0.0"
	penstock.Filter.Wants = penstock.RequestHeaders | penstock.ResponseHeaders | penstock.ResponseBody
	penstock.Filter.Configure = takeConfig
	penstock.Filter.OnRequestHeaders = checkToken
	penstock.Filter.OnResponseHeaders = noteJSON
	penstock.Filter.OnResponseBody = editJSON
}

func takeConfig(string) error {
	token := penstock.Config("token")
	if token == "" {
		return errors.New("the config has no token")
	}
	wanted = "Bearer " + token
	if name := penstock.Config("client"); name != "" {
		client = name
	}
	return nil
}

func checkToken(stream uint64, headers penstock.Headers, end bool) penstock.Result {
	if headers.Get("authorization") != wanted {
		penstock.LogLine(penstock.LevelInfo, "refused "+headers.Get(":path"))
		fields := penstock.Headers{{Name: "www-authenticate", Value: "Bearer"}}
		return penstock.Result{Respond: &penstock.Response{
			Status: 401, Headers: fields, Body: penstock.Text("no valid token"), Details: "no_token",
		}}
	}
	return penstock.Result{Edits: []penstock.Edit{penstock.Remove("authorization"), penstock.Set("x-client", client)}}
}

func noteJSON(stream uint64, headers penstock.Headers, end bool) penstock.Result {
	if !strings.HasPrefix(headers.Get("content-type"), "application/json") {
		return penstock.Result{}
	}
	answeringJSON[stream] = true
	return penstock.Result{Edits: []penstock.Edit{penstock.Remove("content-length")}} // the body's length will change
}

func editJSON(stream uint64, chunk penstock.Data, end bool) penstock.Result {
	if !answeringJSON[stream] {
		return penstock.Result{}
	}
	if !end {
		return penstock.Result{Pause: true}
	}
	delete(answeringJSON, stream)
	var found map[string]any
	if chunk.Binary || json.Unmarshal([]byte(chunk.Bytes), &found) != nil || found == nil {
		return penstock.Result{}
	}
	found["checked"] = true
	text, _ := json.Marshal(found) // of what was JSON
	return penstock.Result{Replace: penstock.Text(string(text))}
}

func main() {}
