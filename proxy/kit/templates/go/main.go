// The filter's callbacks. They are called one at a time; global state lasts as long as the VM.
package main

const longest = 64

var greeting = "world"

//go:wasmexport proxy_on_context_create
func proxyOnContextCreate(context, parent uint32) {}

//go:wasmexport proxy_on_configure
func proxyOnConfigure(root, size uint32) uint32 {
	if size > longest {
		logLine(levelError, "the greeting is longer than 64 bytes")
		return 0
	}
	if text := configuration(size); text != "" {
		greeting = text
	}
	return 1
}

//go:wasmexport proxy_on_request_headers
func proxyOnRequestHeaders(context, count, endOfStream uint32) uint32 {
	if _, found := header(requestHeaders, "x-block"); !found {
		return actionContinue
	}
	logLine(levelInfo, "blocked a request")
	sendLocalResponse(403, "blocked", "blocked\n")
	return actionPause
}

//go:wasmexport proxy_on_response_headers
func proxyOnResponseHeaders(context, count, endOfStream uint32) uint32 {
	setHeader(responseHeaders, "x-hello", greeting)
	return actionContinue
}
