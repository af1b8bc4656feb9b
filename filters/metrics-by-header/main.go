// metrics-by-header: counts requests, time and bytes by the values of a header, of a list that the configuration has.
package main

import (
	"encoding/binary"
	"errors"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"
)

func main() {}

func init() {
	proxywasm.SetPluginContext(func(uint32) types.PluginContext { return &root{} })
}

type root struct {
	types.DefaultPluginContext
	metrics []*metric
}

func (r *root) OnPluginStart(int) types.OnPluginStartStatus {
	source, err := proxywasm.GetPluginConfiguration()
	if err == nil || errors.Is(err, types.ErrorStatusNotFound) {
		r.metrics, err = readMetrics(source)
	}
	if err == nil {
		err = r.define()
	}
	if err != nil {
		proxywasm.LogError("metrics-by-header: configuration refused: " + err.Error())
		return types.OnPluginStartStatusFailed
	}
	return types.OnPluginStartStatusOK
}

func (r *root) NewHttpContext(uint32) types.HttpContext {
	return &stream{metrics: r.metrics, values: make([]int, len(r.metrics))}
}

// stream keeps the number of the value that each metric has for it.
type stream struct {
	types.DefaultHttpContext
	metrics []*metric
	values  []int
	began   bool
}

func (s *stream) OnHttpRequestHeaders(int, bool) types.Action {
	s.began = true
	s.read(fromRequest, proxywasm.GetHttpRequestHeaders)
	return types.ActionContinue
}

// OnHttpStreamDone counts a stream once, with what it came to.
func (s *stream) OnHttpStreamDone() {
	if !s.began {
		// A filter or the gateway answered before this one was asked; Envoy makes a context for the end of the stream.
		return
	}
	s.read(fromResponse, proxywasm.GetHttpResponseHeaders)
	class := statusClass()
	for index, one := range s.metrics {
		one.record(s.values[index], class)
	}
}

// read finds the values of the metrics that look at this head. Its fields are read once, and only if one does.
func (s *stream) read(side string, fields func() ([][2]string, error)) {
	var headers [][2]string
	for index, one := range s.metrics {
		if one.From != side {
			continue
		}
		if headers == nil {
			found, err := fields()
			if err != nil {
				return // there is no such head: the value is none
			}
			headers = found
		}
		s.values[index] = one.find(headers)
	}
}

// statusClass is 0 for no status, else its first digit.
func statusClass() int {
	status, err := proxywasm.GetHttpResponseHeader(":status")
	if err != nil || len(status) != 3 || status[0] < '1' || status[0] > '5' {
		return 0
	}
	return int(status[0] - '0')
}

// number is a property of eight bytes, in the order of Wasm; 0 if the host does not know it.
func number(path ...string) uint64 {
	data, err := proxywasm.GetProperty(path)
	if err != nil || len(data) != 8 {
		return 0
	}
	return binary.LittleEndian.Uint64(data)
}
