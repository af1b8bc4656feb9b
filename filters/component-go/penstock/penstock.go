// Package penstock is the world penstock:filter/filter@0.1.0 for Go, by hand: a folder to copy into a filter's. Structures are laid
// out as the canonical ABI has them (component model): addresses are 32 bits there, where this compiler's pointers take 64.
package penstock

import (
	"errors"
	"unsafe"
)

// ---- What a filter is written with ----

// A Field of a head. In values each byte that is not ASCII stands for itself.
type Field struct{ Name, Value string }

// Headers in order, pseudo-headers first.
type Headers []Field

// Get is the first value of a name, "" if there is none.
func (headers Headers) Get(name string) string {
	for _, field := range headers {
		if field.Name == name {
			return field.Value
		}
	}
	return ""
}

// Data is content: text where it is valid UTF-8, else one character U+0000 to U+00FF for each byte.
type Data struct {
	Binary bool
	Bytes  string
}

func Text(text string) *Data { return &Data{false, text} }

type Edit struct {
	kind uint8
	Field
}

func Set(name, value string) Edit { return Edit{0, Field{name, value}} }
func Add(name, value string) Edit { return Edit{1, Field{name, value}} }
func Remove(name string) Edit     { return Edit{2, Field{name, ""}} }

type Response struct {
	Status  uint16
	Headers Headers
	Body    *Data
	Details string
}

// Result of any callback. Replace is left alone where there is no body, Edits where there is no head.
type Result struct {
	Edits   []Edit
	Replace *Data
	Pause   bool
	Respond *Response
}

// Phases that a filter wants.
const (
	RequestHeaders = 1 << iota
	RequestBody
	RequestTrailers
	ResponseHeaders
	ResponseBody
	ResponseTrailers
	Log
)

// Filter: set it in an init function. Callbacks that are nil let everything go on.
var Filter struct {
	Name, Version      string
	Wants              uint8
	Configure          func(config string) error
	OnRequestHeaders   func(stream uint64, headers Headers, end bool) Result
	OnRequestBody      func(stream uint64, chunk Data, end bool) Result
	OnRequestTrailers  func(stream uint64, trailers Headers, held *Data) Result
	OnResponseHeaders  func(stream uint64, headers Headers, end bool) Result
	OnResponseBody     func(stream uint64, chunk Data, end bool) Result
	OnResponseTrailers func(stream uint64, trailers Headers, held *Data) Result
	// OnHTTPResponse: headers are nil if there is no answer, and problem says why.
	OnHTTPResponse func(stream uint64, call uint32, headers Headers, body Data, trailers Headers, problem string) Result
	OnLog          func(stream uint64)
}

// ---- Memory ----

// What the host has been given, or has written, and Go's collector must not take: until the next callback begins.
var kept []any
var over bool

func begin() {
	if over {
		kept, over = kept[:0], false
	}
}

func keep[T any](value *T) uint32 {
	kept = append(kept, value)
	return uint32(uintptr(unsafe.Pointer(value)))
}

//go:wasmexport cabi_realloc
func realloc(old unsafe.Pointer, oldSize, align, size uint32) unsafe.Pointer {
	begin()
	if size == 0 {
		return unsafe.Pointer(uintptr(align))
	}
	block := make([]uint64, (size+7)/8)
	kept = append(kept, block)
	if old != nil {
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&block[0])), size), unsafe.Slice((*byte)(old), oldSize))
	}
	return unsafe.Pointer(&block[0])
}

// ---- The canonical ABI's structures ----

type list struct{ at, count uint32 }
type field struct{ name, value list }
type data struct {
	kind  uint8
	bytes list
}
type maybeData struct {
	some uint8
	data data
}
type edit struct {
	kind  uint8
	field field
}
type action struct {
	kind     uint8
	response response
}
type response struct {
	status  uint16
	headers list
	body    maybeData
	details list
}
type headersResult struct {
	edits  list
	action action
}
type bodyResult struct {
	replace maybeData
	action  action
}
type heldResult struct {
	edits   list
	replace maybeData
	action  action
}
type filterInfo struct {
	name, version list
	wants         uint8
}
type outcome struct {
	failed uint8
	text   list
}

func lower(text string) list {
	if text == "" {
		return list{1, 0}
	}
	return list{keep(unsafe.StringData(text)), uint32(len(text))}
}

// A copy: what the host has written is gone with the next callback.
func lift(text list) string {
	if text.count == 0 {
		return ""
	}
	return string(unsafe.Slice((*byte)(unsafe.Pointer(uintptr(text.at))), text.count))
}

func lowerList[T any](items []T) list {
	if len(items) == 0 {
		return list{8, 0}
	}
	return list{keep(&items[0]), uint32(len(items))}
}

func lowerHeaders(headers Headers) list {
	fields := make([]field, len(headers))
	for i, one := range headers {
		fields[i] = field{lower(one.Name), lower(one.Value)}
	}
	return lowerList(fields)
}

// One copy for all texts of a head.
func liftHeaders(at unsafe.Pointer, count uint32) Headers {
	if count == 0 {
		return Headers{}
	}
	fields := unsafe.Slice((*field)(at), count)
	size := uint32(0)
	for _, one := range fields {
		size += one.name.count + one.value.count
	}
	texts := make([]byte, 0, size)
	headers := make(Headers, count)
	take := func(text list) string {
		if text.count == 0 {
			return ""
		}
		start := len(texts)
		texts = append(texts, unsafe.Slice((*byte)(unsafe.Pointer(uintptr(text.at))), text.count)...)
		return unsafe.String(&texts[start], text.count)
	}
	for i, one := range fields {
		headers[i] = Field{take(one.name), take(one.value)}
	}
	return headers
}

func lowerData(given *Data) maybeData {
	if given == nil {
		return maybeData{}
	}
	kind := uint8(0)
	if given.Binary {
		kind = 1
	}
	return maybeData{1, data{kind, lower(given.Bytes)}}
}

func liftData(kind uint32, at unsafe.Pointer, size uint32) Data {
	return Data{kind == 1, lift(list{uint32(uintptr(at)), size})}
}

func lowerEdits(edits []Edit) list {
	lowered := make([]edit, len(edits))
	for i, one := range edits {
		lowered[i] = edit{one.kind, field{lower(one.Name), lower(one.Value)}}
	}
	return lowerList(lowered)
}

func lowerAction(result Result) action {
	if answer := result.Respond; answer != nil {
		body, details := lowerData(answer.Body), lower(answer.Details)
		return action{2, response{answer.Status, lowerHeaders(answer.Headers), body, details}}
	}
	if result.Pause {
		return action{kind: 1}
	}
	return action{}
}

func give[T any](value T) unsafe.Pointer {
	result := &value
	keep(result)
	over = true
	return unsafe.Pointer(result)
}

// ---- What the gateway calls ----

//go:wasmexport penstock:filter/http-filter@0.1.0#metadata
func metadata() unsafe.Pointer {
	begin()
	return give(filterInfo{lower(Filter.Name), lower(Filter.Version), Filter.Wants})
}

//go:wasmexport penstock:filter/http-filter@0.1.0#configure
func configure(at unsafe.Pointer, size uint32) unsafe.Pointer {
	begin()
	if Filter.Configure != nil {
		if err := Filter.Configure(lift(list{uint32(uintptr(at)), size})); err != nil {
			return give(outcome{1, lower(err.Error())})
		}
	}
	return give(outcome{})
}

//go:wasmexport penstock:filter/http-filter@0.1.0#on-request-headers
func onRequestHeaders(stream uint64, at unsafe.Pointer, count, end uint32) unsafe.Pointer {
	return head(Filter.OnRequestHeaders, stream, at, count, end)
}

//go:wasmexport penstock:filter/http-filter@0.1.0#on-response-headers
func onResponseHeaders(stream uint64, at unsafe.Pointer, count, end uint32) unsafe.Pointer {
	return head(Filter.OnResponseHeaders, stream, at, count, end)
}

func head(call func(uint64, Headers, bool) Result, stream uint64, at unsafe.Pointer, count, end uint32) unsafe.Pointer {
	begin()
	result := Result{}
	if call != nil {
		result = call(stream, liftHeaders(at, count), end != 0)
	}
	return give(headersResult{lowerEdits(result.Edits), lowerAction(result)})
}

//go:wasmexport penstock:filter/http-filter@0.1.0#on-request-body
func onRequestBody(stream uint64, kind uint32, at unsafe.Pointer, size, end uint32) unsafe.Pointer {
	return piece(Filter.OnRequestBody, stream, kind, at, size, end)
}

//go:wasmexport penstock:filter/http-filter@0.1.0#on-response-body
func onResponseBody(stream uint64, kind uint32, at unsafe.Pointer, size, end uint32) unsafe.Pointer {
	return piece(Filter.OnResponseBody, stream, kind, at, size, end)
}

func piece(call func(uint64, Data, bool) Result, stream uint64, kind uint32, at unsafe.Pointer, size, end uint32) unsafe.Pointer {
	begin()
	result := Result{}
	if call != nil {
		result = call(stream, liftData(kind, at, size), end != 0)
	}
	return give(bodyResult{lowerData(result.Replace), lowerAction(result)})
}

//go:wasmexport penstock:filter/http-filter@0.1.0#on-request-trailers
func onRequestTrailers(stream uint64, at unsafe.Pointer, count, some, kind uint32, body unsafe.Pointer, size uint32) unsafe.Pointer {
	return trailers(Filter.OnRequestTrailers, stream, at, count, some, kind, body, size)
}

//go:wasmexport penstock:filter/http-filter@0.1.0#on-response-trailers
func onResponseTrailers(stream uint64, at unsafe.Pointer, count, some, kind uint32, body unsafe.Pointer, size uint32) unsafe.Pointer {
	return trailers(Filter.OnResponseTrailers, stream, at, count, some, kind, body, size)
}

func trailers(
	call func(uint64, Headers, *Data) Result, stream uint64, at unsafe.Pointer, count, some, kind uint32, body unsafe.Pointer,
	size uint32,
) unsafe.Pointer {
	begin()
	result := Result{}
	if call != nil {
		var held *Data
		if some != 0 {
			whole := liftData(kind, body, size)
			held = &whole
		}
		result = call(stream, liftHeaders(at, count), held)
	}
	return held(result)
}

func held(result Result) unsafe.Pointer {
	return give(heldResult{lowerEdits(result.Edits), lowerData(result.Replace), lowerAction(result)})
}

//go:wasmexport penstock:filter/http-filter@0.1.0#on-http-response
func onHTTPResponse(
	stream uint64, call, failed uint32, a unsafe.Pointer, b, kind uint32, body unsafe.Pointer, size uint32, c unsafe.Pointer,
	d uint32,
) unsafe.Pointer {
	begin()
	result := Result{}
	if Filter.OnHTTPResponse != nil && failed != 0 {
		result = Filter.OnHTTPResponse(stream, call, nil, Data{}, nil, lift(list{uint32(uintptr(a)), b}))
	} else if Filter.OnHTTPResponse != nil {
		result = Filter.OnHTTPResponse(stream, call, liftHeaders(a, b), liftData(kind, body, size), liftHeaders(c, d), "")
	}
	return held(result)
}

//go:wasmexport penstock:filter/http-filter@0.1.0#on-log
func onLog(stream uint64) {
	begin()
	if Filter.OnLog != nil {
		Filter.OnLog(stream)
	}
	over = true
}

// ---- What a filter calls ----

const (
	LevelTrace = iota
	LevelDebug
	LevelInfo
	LevelWarn
	LevelError
	LevelCritical
)

//go:wasmimport penstock:filter/logging@0.1.0 log
func importLog(level uint32, at unsafe.Pointer, size uint32)

func LogLine(level uint32, line string) { importLog(level, pointer(line), uint32(len(line))) }

//go:wasmimport penstock:filter/config@0.1.0 get
func importConfig(at unsafe.Pointer, size uint32, result unsafe.Pointer)

// Config is a top-level key of the config, "" if there is none.
func Config(key string) string {
	result := &outcome{}
	importConfig(pointer(key), uint32(len(key)), unsafe.Pointer(result))
	return lift(result.text)
}

//go:wasmimport penstock:filter/properties@0.1.0 get
func importProperty(at unsafe.Pointer, size uint32, result unsafe.Pointer)

// Property by its path, "" if there is none.
func Property(path string) string {
	result := &outcome{}
	importProperty(pointer(path), uint32(len(path)), unsafe.Pointer(result))
	return lift(result.text)
}

//go:wasmimport penstock:filter/clock@0.1.0 now-ns
func Now() uint64

//go:wasmimport penstock:filter/random@0.1.0 get-u64
func Random() uint64

//go:wasmimport penstock:filter/clock@0.1.0 monotonic-ns
func Monotonic() uint64

//go:wasmimport penstock:filter/metrics@0.1.0 counter-add
func importCounter(at unsafe.Pointer, size uint32, delta uint64)

//go:wasmimport penstock:filter/metrics@0.1.0 gauge-set
func importGauge(at unsafe.Pointer, size uint32, value int64)

//go:wasmimport penstock:filter/metrics@0.1.0 histogram-record
func importHistogram(at unsafe.Pointer, size uint32, value uint64)

func CounterAdd(name string, delta uint64) { importCounter(pointer(name), uint32(len(name)), delta) }
func GaugeSet(name string, value int64)    { importGauge(pointer(name), uint32(len(name)), value) }
func HistogramRecord(name string, value uint64) {
	importHistogram(pointer(name), uint32(len(name)), value)
}

//go:wasmimport penstock:filter/kv@0.1.0 get
func importGet(at unsafe.Pointer, size uint32, result unsafe.Pointer)

//go:wasmimport penstock:filter/kv@0.1.0 set
func importSet(key unsafe.Pointer, keySize, kind uint32, at unsafe.Pointer, size, some, version uint32, result unsafe.Pointer)

// ErrConflict: the key has another version by now.
var ErrConflict = errors.New("the key has another version")

// Get what is shared under a key; version 0: nothing is.
func Get(key string) (value string, version uint32, err error) {
	found := &struct {
		failed uint8
		body   struct {
			some    uint8
			value   data
			version uint32
		}
	}{}
	importGet(pointer(key), uint32(len(key)), unsafe.Pointer(found))
	if found.failed != 0 {
		return "", 0, errors.New(lift(*(*list)(unsafe.Pointer(&found.body.value))))
	}
	if found.body.some == 0 {
		return "", 0, nil
	}
	return lift(found.body.value.bytes), found.body.version, nil
}

// Put a value under a key, if it still has that version; 0: whatever it has.
func Put(key, value string, version uint32) error {
	written := &struct {
		failed uint8
		body   outcome // its first byte is the error's kind
	}{}
	some := uint32(0)
	if version != 0 {
		some = 1
	}
	importSet(pointer(key), uint32(len(key)), 0, pointer(value), uint32(len(value)), some, version, unsafe.Pointer(written))
	if written.failed == 0 {
		return nil
	}
	if written.body.failed == 0 {
		return ErrConflict
	}
	return errors.New(lift(written.body.text))
}

//go:wasmimport penstock:filter/http-client@0.1.0 send
func importSend(upstream unsafe.Pointer, upstreamSize, headers, count, some, kind, body, size, timeout uint32, result unsafe.Pointer)

// Send a request and pause: OnHTTPResponse is given the answer with this number.
func Send(upstream string, headers Headers, body *Data, timeoutMilliseconds uint32) (uint32, error) {
	started := &outcome{}
	head, content := lowerHeaders(headers), lowerData(body)
	importSend(pointer(upstream), uint32(len(upstream)), head.at, head.count, uint32(content.some), uint32(content.data.kind),
		content.data.bytes.at, content.data.bytes.count, timeoutMilliseconds, unsafe.Pointer(started))
	if started.failed != 0 {
		return 0, errors.New(lift(started.text))
	}
	return started.text.at, nil
}

func pointer(text string) unsafe.Pointer { return unsafe.Pointer(unsafe.StringData(text)) }
