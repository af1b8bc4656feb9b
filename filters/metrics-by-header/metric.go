package main

import (
	"fmt"
	"strings"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
)

// The first values of every metric: the header is not there; it has a value that is not in the list.
const (
	valueNone = iota
	valueOther
)

var classes = []string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}

// instruments of one value. What is not measured has none.
type instruments struct {
	requests                            []proxywasm.MetricCounter // by class; one, if they are not told apart
	duration, requestSize, responseSize proxywasm.MetricHistogram
}

// define makes all metrics that there can be. What clients send makes none.
func (r *root) define() (err error) {
	defer func() {
		if refused := recover(); refused != nil { // the SDK's word for a host that takes no more
			err = fmt.Errorf("the gateway took no more metrics: %v", refused)
		}
	}()
	for _, one := range r.metrics {
		for _, value := range one.labels {
			one.instruments = append(one.instruments, one.instrumentsOf(value))
		}
	}
	return nil
}

func (m *metric) instrumentsOf(value string) (made instruments) {
	label := m.Label + "=.=" + value + ";.;"
	if m.measures("requests") && m.byStatus {
		for _, class := range classes {
			name := label + "code=.=" + class + ";.;" + m.Name + "_requests"
			made.requests = append(made.requests, proxywasm.DefineCounterMetric(name))
		}
	} else if m.measures("requests") {
		made.requests = append(made.requests, proxywasm.DefineCounterMetric(label+m.Name+"_requests"))
	}
	for measure, histogram := range map[string]*proxywasm.MetricHistogram{
		"duration": &made.duration, "request_bytes": &made.requestSize, "response_bytes": &made.responseSize,
	} {
		if m.measures(measure) {
			*histogram = proxywasm.DefineHistogramMetric(label + m.Name + "_" + suffixes[measure])
		}
	}
	return made
}

// find is the number of the value that the header has. Several fields are a value that is not in the list.
func (m *metric) find(headers [][2]string) int {
	found, count := "", 0
	for _, field := range headers {
		if field[0] == m.Header {
			found = field[1]
			count++
		}
	}
	if count == 0 {
		return valueNone
	}
	if m.IgnoreCase {
		found = strings.ToLower(found)
	}
	if count == 1 {
		if value, known := m.exact[found]; known {
			return value
		}
		for _, one := range m.prefixes {
			if strings.HasPrefix(found, one.text) {
				return one.value
			}
		}
	}
	return valueOther
}

// record adds a stream.
func (m *metric) record(value, class int) {
	to := &m.instruments[value]
	switch len(to.requests) {
	case 0:
	case 1:
		to.requests[0].Increment(1)
	default:
		to.requests[class].Increment(1)
	}
	if m.measures("duration") {
		to.duration.Record(number("request", "duration") / 1_000_000)
	}
	if m.measures("request_bytes") {
		to.requestSize.Record(number("request", "size"))
	}
	if m.measures("response_bytes") {
		to.responseSize.Record(number("response", "size"))
	}
}
