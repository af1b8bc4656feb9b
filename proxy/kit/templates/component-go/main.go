package main

import (
	"errors"

	"@NAME@/penstock"
)

var greeting = "world"

func init() {
	penstock.Filter.Name, penstock.Filter.Version = "@NAME@", "0.1.0"
	penstock.Filter.Wants = penstock.RequestHeaders | penstock.ResponseHeaders
	penstock.Filter.Configure = configure
	penstock.Filter.OnRequestHeaders = block
	penstock.Filter.OnResponseHeaders = greet
}

// An instance has one configuration for life; an error refuses it.
func configure(config string) error {
	if len(config) > 64 {
		return errors.New("the greeting is longer than 64 bytes")
	}
	if config != "" {
		greeting = config
	}
	return nil
}

func block(stream uint64, headers penstock.Headers, end bool) penstock.Result {
	if headers.Get("x-block") == "" {
		return penstock.Result{}
	}
	penstock.LogLine(penstock.LevelInfo, "blocked a request")
	return penstock.Result{Respond: &penstock.Response{Status: 403, Body: penstock.Text("blocked\n"), Details: "blocked"}}
}

func greet(stream uint64, headers penstock.Headers, end bool) penstock.Result {
	return penstock.Result{Edits: []penstock.Edit{penstock.Set("x-hello", greeting)}}
}

func main() {}
