// cache-control: says how long responses may be kept, by path, type and status, where the service does not.
package main

import (
	"errors"
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
	settings *settings
}

func (r *root) OnPluginStart(int) types.OnPluginStartStatus {
	source, err := proxywasm.GetPluginConfiguration()
	if err == nil || errors.Is(err, types.ErrorStatusNotFound) {
		r.settings, err = readSettings(source)
	}
	if err != nil {
		proxywasm.LogError("cache-control: configuration refused: " + err.Error())
		return types.OnPluginStartStatusFailed
	}
	return types.OnPluginStartStatusOK
}

func (r *root) NewHttpContext(uint32) types.HttpContext { return &stream{settings: r.settings} }

// stream keeps what the response phase needs of a request, whose headers are out of reach then.
type stream struct {
	types.DefaultHttpContext
	settings *settings
	request  request
	answered bool
}

type request struct {
	method, path string
	// Whether what comes back may be meant for one user only.
	authorized              bool
	ifNoneMatch, ifModified string
}

func (s *stream) OnHttpRequestHeaders(int, bool) types.Action {
	headers, err := proxywasm.GetHttpRequestHeaders()
	if err != nil {
		return types.ActionContinue
	}
	for _, field := range headers {
		switch field[0] {
		case ":method":
			s.request.method = strings.Clone(field[1])
		case ":path":
			path, _, _ := strings.Cut(field[1], "?")
			s.request.path = strings.Clone(path)
		case "authorization":
			s.request.authorized = true
		case "if-none-match":
			s.request.ifNoneMatch = joined(s.request.ifNoneMatch, field[1])
		case "if-modified-since":
			s.request.ifModified = strings.Clone(field[1])
		}
	}
	return types.ActionContinue
}

func (s *stream) OnHttpResponseHeaders(int, bool) types.Action {
	if s.answered {
		return types.ActionContinue
	}
	headers, err := proxywasm.GetHttpResponseHeaders()
	if err != nil {
		return types.ActionContinue
	}
	response := readResponse(headers)
	rule := s.settings.ruleFor(&s.request, response)
	if rule != nil {
		rule.apply(&s.request, response)
	}
	if s.settings.notModified && s.request.stillHas(response) {
		s.answered = true
		if err := proxywasm.SendHttpResponse(304, response.kept(), nil, -1); err == nil {
			return types.ActionPause
		}
	}
	return types.ActionContinue
}

// joined is what a header comes to whose fields are one list.
func joined(list, value string) string {
	if list == "" {
		return strings.Clone(value)
	}
	return list + ", " + value
}

func set(name, value string) {
	if err := proxywasm.ReplaceHttpResponseHeader(name, value); err != nil {
		proxywasm.LogWarn("cache-control: " + name + " could not be set: " + err.Error())
	}
}

func remove(name string) {
	if err := proxywasm.RemoveHttpResponseHeader(name); err != nil {
		proxywasm.LogWarn("cache-control: " + name + " could not be removed: " + err.Error())
	}
}
