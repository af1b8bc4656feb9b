// A stock Go filter on the raw proxy-wasm ABI: standard library only, built by the ordinary Go compiler. It stands for
// what large toolchains make: a module of megabytes, a start function, a WASI runtime, and an allocator that does not
// stand a request for nothing.
//
// Its configuration is a text, or nothing. With it the filter
//   - adds "x-go-agent: <user-agent>" and "x-go-config: <configuration>" to the request,
//   - adds "x-go: ok" to the response and removes "x-go-remove",
//   - logs "go: <method> <path>" for each request, and "go: configured: <configuration>" once.
//
// The configuration "refuse" is refused.
package main

import (
	"fmt"
	"unsafe"
)

//go:wasmimport env proxy_log
func proxyLog(level uint32, message unsafe.Pointer, length uint32) uint32

//go:wasmimport env proxy_get_buffer_bytes
func proxyGetBufferBytes(buffer, start, max uint32, data, length unsafe.Pointer) uint32

//go:wasmimport env proxy_get_header_map_value
func proxyGetHeaderMapValue(headers uint32, key unsafe.Pointer, keyLength uint32, value, valueLength unsafe.Pointer) uint32

//go:wasmimport env proxy_add_header_map_value
func proxyAddHeaderMapValue(headers uint32, key unsafe.Pointer, keyLength uint32, value unsafe.Pointer, valueLength uint32) uint32

//go:wasmimport env proxy_remove_header_map_value
func proxyRemoveHeaderMapValue(headers uint32, key unsafe.Pointer, keyLength uint32) uint32

const (
	statusOK            = 0
	actionContinue      = 0
	logInfo             = 2
	logError            = 4
	requestHeaders      = 0
	responseHeaders     = 2
	pluginConfiguration = 7
)

// What the host was given and has not handed over yet, by address: keeps the garbage collector off.
var handedOut = map[*byte][]byte{}

var configuration string

//go:wasmexport proxy_abi_version_0_2_1
func proxyABIVersion() {}

//go:wasmexport proxy_on_memory_allocate
func proxyOnMemoryAllocate(size uint32) unsafe.Pointer {
	block := make([]byte, size)
	handedOut[&block[0]] = block
	return unsafe.Pointer(&block[0])
}

// received takes over what the host wrote.
func received(data *byte, length uint32) string {
	if data == nil {
		return ""
	}
	block := handedOut[data][:length]
	delete(handedOut, data)
	return string(block)
}

func pointer(text string) unsafe.Pointer {
	return unsafe.Pointer(unsafe.StringData(text))
}

func log(level uint32, message string) {
	proxyLog(level, pointer(message), uint32(len(message)))
}

func get(headers uint32, name string) string {
	var data *byte
	var length uint32
	if proxyGetHeaderMapValue(headers, pointer(name), uint32(len(name)), unsafe.Pointer(&data), unsafe.Pointer(&length)) != statusOK {
		return ""
	}
	return received(data, length)
}

func add(headers uint32, name, value string) {
	proxyAddHeaderMapValue(headers, pointer(name), uint32(len(name)), pointer(value), uint32(len(value)))
}

//go:wasmexport proxy_on_context_create
func proxyOnContextCreate(context, parent uint32) {}

//go:wasmexport proxy_on_vm_start
func proxyOnVMStart(root, size uint32) bool { return true }

//go:wasmexport proxy_on_configure
func proxyOnConfigure(root, size uint32) bool {
	var data *byte
	var length uint32
	if size > 0 && proxyGetBufferBytes(pluginConfiguration, 0, size, unsafe.Pointer(&data), unsafe.Pointer(&length)) != statusOK {
		log(logError, "go: the configuration cannot be read")
		return false
	}
	configuration = received(data, length)
	if configuration == "refuse" {
		log(logError, "go: configuration refused")
		return false
	}
	log(logInfo, fmt.Sprintf("go: configured: %s", configuration))
	return true
}

//go:wasmexport proxy_on_request_headers
func proxyOnRequestHeaders(context, count uint32, endOfStream uint32) uint32 {
	log(logInfo, fmt.Sprintf("go: %s %s", get(requestHeaders, ":method"), get(requestHeaders, ":path")))
	add(requestHeaders, "x-go-agent", get(requestHeaders, "user-agent"))
	add(requestHeaders, "x-go-config", configuration)
	return actionContinue
}

//go:wasmexport proxy_on_response_headers
func proxyOnResponseHeaders(context, count uint32, endOfStream uint32) uint32 {
	const unwanted = "x-go-remove"
	proxyRemoveHeaderMapValue(responseHeaders, pointer(unwanted), uint32(len(unwanted)))
	add(responseHeaders, "x-go", "ok")
	return actionContinue
}

//go:wasmexport proxy_on_done
func proxyOnDone(context uint32) bool { return true }

//go:wasmexport proxy_on_delete
func proxyOnDelete(context uint32) {}

func main() {}
