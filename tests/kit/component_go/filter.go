// component.c in Go: the package penstock is copied beside it.

package main

import (
	"errors"
	"strconv"

	"tokencheck/penstock"
)

func init() {
	penstock.Filter.Name, penstock.Filter.Version, penstock.Filter.Wants = "kit", "1.0", penstock.RequestHeaders|penstock.ResponseHeaders|penstock.ResponseBody
	penstock.Filter.Configure = func(config string) error {
		if config == "no" {
			return errors.New("the config says no")
		}
		return nil
	}
	penstock.Filter.OnRequestHeaders = onRequest
	penstock.Filter.OnHTTPResponse = func(stream uint64, call uint32, headers penstock.Headers, body penstock.Data, trailers penstock.Headers, problem string) penstock.Result {
		if headers != nil {
			problem = headers.Get(":status")
		}
		return add("x-call", problem)
	}
	penstock.Filter.OnResponseHeaders = func(uint64, penstock.Headers, bool) penstock.Result {
		return penstock.Result{Edits: []penstock.Edit{penstock.Remove("content-length")}}
	}
	penstock.Filter.OnResponseBody = func(stream uint64, chunk penstock.Data, end bool) penstock.Result {
		return penstock.Result{Replace: &penstock.Data{chunk.Binary, "<" + chunk.Bytes + ">"}}
	}
}

func add(name, value string) penstock.Result {
	return penstock.Result{Edits: []penstock.Edit{penstock.Add(name, value)}}
}

func onRequest(stream uint64, headers penstock.Headers, end bool) penstock.Result {
	switch headers.Get("x-do") {
	case "time":
		return add("x-time", strconv.FormatUint(penstock.Now(), 10)+" "+strconv.FormatUint(penstock.Monotonic(), 10))
	case "random":
		return add("x-random", strconv.FormatUint(penstock.Random(), 10))
	case "count":
		n, version, _ := penstock.Get("n")
		n += "I"
		if err := penstock.Put("n", n, version); err != nil {
			n = err.Error()
		} else if penstock.Put("n", n, version+1000) != penstock.ErrConflict {
			n = "no conflict"
		}
		penstock.CounterAdd("counted", 2)
		penstock.GaugeSet("level", -3)
		penstock.HistogramRecord("sizes", uint64(len(n)))
		return add("x-count", n)
	case "call":
		asked := penstock.Headers{{":method", "GET"}, {":path", "/check"}, {":authority", "auth"}}
		if _, err := penstock.Send("auth", asked, nil, 2000); err != nil {
			return add("x-call", "refused")
		}
		return penstock.Result{Pause: true}
	case "trap":
		panic("as asked for")
	}
	penstock.LogLine(penstock.LevelInfo, "nothing to do")
	return penstock.Result{}
}

func main() {}
