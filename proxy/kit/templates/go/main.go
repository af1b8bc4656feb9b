// The filter's callbacks. They are called one at a time; global state lasts as long as the VM.
package main

const longest = 64

// Each configuration, a route's own too, has a root context, and all of them share this VM.
var (
	greetings = map[uint32]string{} // by root
	roots     = map[uint32]uint32{} // of each stream
)

//go:wasmexport proxy_on_context_create
func proxyOnContextCreate(context, parent uint32) {
	if parent != 0 {
		roots[context] = parent
	}
}

//go:wasmexport proxy_on_delete
func proxyOnDelete(context uint32) {
	delete(roots, context)
}

//go:wasmexport proxy_on_configure
func proxyOnConfigure(root, size uint32) uint32 {
	if size > longest {
		logLine(levelError, "the greeting is longer than 64 bytes")
		return 0
	}
	greetings[root] = "world"
	if text := configuration(size); text != "" {
		greetings[root] = text
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
	setHeader(responseHeaders, "x-hello", greetings[roots[context]])
	return actionContinue
}
