package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	fromRequest  = "request"
	fromResponse = "response"

	mostMetrics = 20
	mostValues  = 200
	mostSeries  = 900 // Penstock's limits.metrics is 1,000 for a filter
)

// What can be measured, and how the metric's name ends then.
var suffixes = map[string]string{
	"requests": "requests", "duration": "duration_ms", "request_bytes": "request_bytes", "response_bytes": "response_bytes",
}

// A label of two underscores is Prometheus' own, and these are taken.
var taken = []string{"filter", "le", "quantile", "code"}

// metric is an entry of the configuration, and what it comes to.
type metric struct {
	Name       string   `json:"name"`
	Header     string   `json:"header"`
	From       string   `json:"from"`
	Label      string   `json:"label"`
	Values     []value  `json:"values"`
	IgnoreCase bool     `json:"ignore_case"`
	Measure    []string `json:"measure"`
	ByStatus   *bool    `json:"by_status"`

	byStatus    bool
	labels      []string // by the number of a value
	exact       map[string]int
	prefixes    []prefix
	instruments []instruments
}

type prefix struct {
	text  string
	value int
}

// value is a text, or {as, is, prefix}.
type value struct {
	As     string   `json:"as"`
	Is     []string `json:"is"`
	Prefix []string `json:"prefix"`
}

func (v *value) UnmarshalJSON(source []byte) error {
	if text := ""; json.Unmarshal(source, &text) == nil {
		*v = value{As: text, Is: []string{text}}
		return nil
	}
	type plain value
	return decode(source, (*plain)(v))
}

func (m *metric) measures(what string) bool { return slices.Contains(m.Measure, what) }

func readMetrics(source []byte) ([]*metric, error) {
	var whole struct {
		Metrics []*metric `json:"metrics"`
	}
	if len(source) == 0 {
		return nil, errors.New("there is none")
	}
	if err := decode(source, &whole); err != nil {
		return nil, err
	}
	if count := len(whole.Metrics); count < 1 || count > mostMetrics {
		return nil, fmt.Errorf("metrics: %d entries, 1 to %d are allowed", count, mostMetrics)
	}
	series, names := 0, map[string]bool{}
	for index, one := range whole.Metrics {
		path := fmt.Sprintf("metrics[%d]", index)
		if one == nil {
			return nil, fmt.Errorf("%s: must be a mapping", path)
		}
		if err := one.complete(path); err != nil {
			return nil, err
		}
		if names[one.Name] {
			return nil, fmt.Errorf("%s.name: %s appears twice", path, one.Name)
		}
		names[one.Name] = true
		series += one.series()
	}
	if series > mostSeries {
		return nil, fmt.Errorf("metrics: they come to %d series, at most %d are allowed", series, mostSeries)
	}
	return whole.Metrics, nil
}

// decode reads one JSON value, whose keys must all be known.
func decode(source []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(source))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("text after the end of the value")
	}
	return nil
}

// complete checks an entry, fills in what it leaves out, and prepares what requests need.
func (m *metric) complete(path string) error {
	m.Header = strings.ToLower(m.Header)
	if !consists(m.Header, 128, "!#$%&'*+-.^_`|~") {
		return fmt.Errorf("%s.header: %q is not the name of a header", path, m.Header)
	}
	if m.From == "" {
		m.From = fromRequest
	}
	if m.From != fromRequest && m.From != fromResponse {
		return fmt.Errorf("%s.from: must be request or response", path)
	}
	if !isName(m.Name) {
		return fmt.Errorf("%s.name: %q is not the name of a metric", path, m.Name)
	}
	if m.Label == "" {
		m.Label = strings.ReplaceAll(m.Header, "-", "_")
	}
	if !isName(m.Label) || strings.HasPrefix(m.Label, "__") || slices.Contains(taken, m.Label) {
		return fmt.Errorf("%s.label: %q can not be a label", path, m.Label)
	}
	if m.Measure == nil {
		m.Measure = []string{"requests"}
	}
	for _, measure := range m.Measure {
		if suffixes[measure] == "" {
			return fmt.Errorf("%s.measure: must be of requests, duration, request_bytes, response_bytes", path)
		}
	}
	if len(m.Measure) == 0 {
		return fmt.Errorf("%s.measure: is empty, nothing would be measured", path)
	}
	m.byStatus = m.ByStatus == nil || *m.ByStatus
	return m.number(path)
}

// number gives the values their numbers.
func (m *metric) number(path string) error {
	if count := len(m.Values); count < 1 || count > mostValues {
		return fmt.Errorf("%s.values: %d entries, 1 to %d are allowed", path, count, mostValues)
	}
	m.labels = []string{valueNone: "none", valueOther: "other"}
	m.exact = map[string]int{}
	for index, one := range m.Values {
		at := fmt.Sprintf("%s.values[%d]", path, index)
		if !consists(one.As, 64, "._/@ -") {
			return fmt.Errorf("%s: %q can not be a label's value: letters, digits and ._/@- and blanks, at most 64", at, one.As)
		}
		if slices.Contains(m.labels, one.As) {
			return fmt.Errorf("%s: %s is there already", at, one.As)
		}
		if len(one.Is)+len(one.Prefix) == 0 {
			return fmt.Errorf("%s: needs is or prefix", at)
		}
		for _, text := range one.Is {
			text = m.folded(text)
			if _, known := m.exact[text]; known {
				return fmt.Errorf("%s: %q is there already", at, text)
			}
			m.exact[text] = len(m.labels)
		}
		for _, text := range one.Prefix {
			if text == "" {
				return fmt.Errorf("%s.prefix: is empty, all would begin with it", at)
			}
			m.prefixes = append(m.prefixes, prefix{m.folded(text), len(m.labels)})
		}
		m.labels = append(m.labels, one.As)
	}
	return nil
}

func (m *metric) folded(text string) string {
	if m.IgnoreCase {
		return strings.ToLower(text)
	}
	return text
}

// series is how many metrics the entry comes to.
func (m *metric) series() int {
	each := len(m.Measure)
	if m.byStatus && m.measures("requests") {
		each += len(classes) - 1
	}
	return each * len(m.labels)
}

// isName keeps to Prometheus' rules for names of metrics and labels.
func isName(text string) bool { return consists(text, 64, "_") && (text[0] < '0' || text[0] > '9') }

// consists says whether a text has 1 to `most` bytes, all of them letters, digits, or of `others`.
func consists(text string, most int, others string) bool {
	for _, one := range []byte(text) {
		letter := one|0x20 >= 'a' && one|0x20 <= 'z'
		if !letter && (one < '0' || one > '9') && !strings.Contains(others, string(rune(one))) {
			return false
		}
	}
	return len(text) >= 1 && len(text) <= most
}
