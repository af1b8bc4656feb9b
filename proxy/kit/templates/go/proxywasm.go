package main

import "unsafe"

// The proxy-wasm ABI 0.2.1, as far as main.go needs it: add what you use.

//go:wasmimport env proxy_log
func proxyLog(level uint32, message unsafe.Pointer, length uint32) uint32

//go:wasmimport env proxy_get_buffer_bytes
func proxyGetBufferBytes(buffer, start, most uint32, data, length unsafe.Pointer) uint32

//go:wasmimport env proxy_get_header_map_value
func proxyGetHeaderMapValue(headers uint32, key unsafe.Pointer, keyLength uint32, value, valueLength unsafe.Pointer) uint32

//go:wasmimport env proxy_replace_header_map_value
func proxyReplaceHeaderMapValue(headers uint32, key unsafe.Pointer, keyLength uint32, value unsafe.Pointer, valueLength uint32) uint32

//go:wasmimport env proxy_send_local_response
func proxySendLocalResponse(status uint32, details unsafe.Pointer, detailsLength uint32, body unsafe.Pointer, bodyLength uint32,
	headers unsafe.Pointer, headersLength uint32, grpcStatus int32) uint32

const (
	requestHeaders      = 0
	responseHeaders     = 2
	pluginConfiguration = 7

	levelInfo  = 2
	levelError = 4

	actionContinue = 0
	actionPause    = 1
)

// What the host asked for and the filter has not taken over yet: keeps the garbage collector off.
var handedOut = map[*byte][]byte{}

//go:wasmexport proxy_abi_version_0_2_1
func proxyABIVersion() {}

//go:wasmexport proxy_on_memory_allocate
func proxyOnMemoryAllocate(size uint32) unsafe.Pointer {
	block := make([]byte, size)
	handedOut[&block[0]] = block
	return unsafe.Pointer(&block[0])
}

// take is what the host has handed out, as a string.
func take(data *byte, length uint32) string {
	if data == nil {
		return ""
	}
	text := string(handedOut[data][:length])
	delete(handedOut, data)
	return text
}

func pointer(text string) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(text)), uint32(len(text))
}

func logLine(level uint32, message string) {
	data, length := pointer(message)
	proxyLog(level, data, length)
}

// configuration reads the plugin's configuration; in proxy_on_configure.
func configuration(size uint32) string {
	var data *byte
	var length uint32
	if size == 0 || proxyGetBufferBytes(pluginConfiguration, 0, size, unsafe.Pointer(&data), unsafe.Pointer(&length)) != 0 {
		return ""
	}
	return take(data, length)
}

// header is the value of the first field of that name.
func header(headers uint32, name string) (string, bool) {
	var data *byte
	var length uint32
	key, keyLength := pointer(name)
	if proxyGetHeaderMapValue(headers, key, keyLength, unsafe.Pointer(&data), unsafe.Pointer(&length)) != 0 {
		return "", false
	}
	return take(data, length), true
}

func setHeader(headers uint32, name, value string) {
	key, keyLength := pointer(name)
	text, length := pointer(value)
	proxyReplaceHeaderMapValue(headers, key, keyLength, text, length)
}

func sendLocalResponse(status uint32, details, body string) {
	why, whyLength := pointer(details)
	text, length := pointer(body)
	proxySendLocalResponse(status, why, whyLength, text, length, nil, 0, -1)
}

func main() {}
