// The guest of ../sdk_guests.md on the Go SDK.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"
)

func main() {}

func init() {
	proxywasm.SetPluginContext(func(uint32) types.PluginContext { return &root{} })
}

type root struct {
	types.DefaultPluginContext
	configuration string
	ticks         int
	requests      proxywasm.MetricCounter
	open          proxywasm.MetricGauge
	sizes         proxywasm.MetricHistogram
}

func (r *root) OnPluginStart(int) types.OnPluginStartStatus {
	configuration, err := proxywasm.GetPluginConfiguration()
	if err != nil && !errors.Is(err, types.ErrorStatusNotFound) {
		return types.OnPluginStartStatusFailed
	}
	r.configuration = string(configuration)
	proxywasm.LogInfof("configured: %s", r.configuration)
	r.requests = proxywasm.DefineCounterMetric("sdk_requests")
	r.open = proxywasm.DefineGaugeMetric("sdk_open")
	r.sizes = proxywasm.DefineHistogramMetric("sdk_sizes")
	if proxywasm.SetTickPeriodMilliSeconds(50) != nil {
		return types.OnPluginStartStatusFailed
	}
	return types.OnPluginStartStatusOK
}

func (r *root) OnTick() {
	r.ticks++
	if r.ticks == 3 {
		proxywasm.LogInfo("third tick")
	}
}

func (r *root) NewHttpContext(uint32) types.HttpContext { return &guest{root: r} }

type guest struct {
	types.DefaultHttpContext
	root *root
	path string
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func count() uint32 {
	for {
		data, cas, err := proxywasm.GetSharedData("count")
		next := uint32(1)
		switch {
		case errors.Is(err, types.ErrorStatusNotFound):
			cas = math.MaxUint32
		case err != nil:
			panic(err)
		default:
			next = binary.LittleEndian.Uint32(data) + 1
		}
		err = proxywasm.SetSharedData("count", binary.LittleEndian.AppendUint32(nil, next), cas)
		if err == nil {
			return next
		}
		if !errors.Is(err, types.ErrorStatusCasMismatch) {
			panic(err)
		}
	}
}

func (g *guest) OnHttpRequestHeaders(int, bool) types.Action {
	path, err := proxywasm.GetHttpRequestHeader(":path")
	must(err)
	g.path = path
	g.root.requests.Increment(1)
	g.root.open.Add(2)
	g.root.sizes.Record(7)
	switch path {
	case "/headers":
		headers, err := proxywasm.GetHttpRequestHeaders()
		must(err)
		must(proxywasm.AddHttpRequestHeader("x-count", fmt.Sprint(len(headers))))
		must(proxywasm.ReplaceHttpRequestHeader("x-replace", "new"))
		must(proxywasm.RemoveHttpRequestHeader("x-remove"))
	case "/body":
		must(proxywasm.RemoveHttpRequestHeader("content-length"))
	case "/counter":
		must(proxywasm.AddHttpRequestHeader("x-shared", fmt.Sprint(count())))
	case "/auth":
		ask, err := proxywasm.GetHttpRequestHeader("x-ask")
		must(err)
		headers := [][2]string{{":method", "GET"}, {":path", ask}, {":authority", "auth"}}
		_, err = proxywasm.DispatchHttpCall("service", headers, nil, nil, 2000, answered)
		must(err)
		return types.ActionPause
	}
	return types.ActionContinue
}

func answered(int, int, int) {
	headers, err := proxywasm.GetHttpCallResponseHeaders()
	must(err)
	status, user := "reset", ""
	for _, header := range headers {
		switch header[0] {
		case ":status":
			status = header[1]
		case "x-user":
			user = header[1]
		}
	}
	if status == "200" {
		must(proxywasm.AddHttpRequestHeader("x-user", user))
		must(proxywasm.ResumeHttpRequest())
		return
	}
	must(proxywasm.SendHttpResponse(403, nil, []byte("no: "+status), -1))
}

func (g *guest) OnHttpRequestBody(size int, end bool) types.Action {
	if g.path != "/body" {
		return types.ActionContinue
	}
	if !end {
		return types.ActionPause
	}
	body, err := proxywasm.GetHttpRequestBody(0, size)
	must(err)
	must(proxywasm.ReplaceHttpRequestBody([]byte("[" + strings.ToUpper(string(body)) + "]")))
	return types.ActionContinue
}

func (g *guest) OnHttpResponseHeaders(int, bool) types.Action {
	must(proxywasm.AddHttpResponseHeader("x-hello", g.root.configuration))
	return types.ActionContinue
}
