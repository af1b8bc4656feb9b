package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

const mostRules = 200

type etagHandling int

const (
	etagKeep etagHandling = iota
	etagWeaken
	etagRemove
)

type settings struct {
	rules       []*rule
	notModified bool
}

type rule struct {
	path, prefix string
	suffixes     []string
	types        []string
	statuses     []string // "200", "4xx"
	methods      []string

	cacheControl string
	privately    string // the same for one user's cache only
	cdn          string
	shared       bool
	always       bool
	vary         []string
	etag         etagHandling
}

// ruleFor is the first rule that takes the response, or nil.
func (s *settings) ruleFor(request *request, response *response) *rule {
	for _, one := range s.rules {
		if one.takes(request, response) {
			return one
		}
	}
	return nil
}

func (one *rule) takes(request *request, response *response) bool {
	return slices.Contains(one.methods, request.method) &&
		(one.path == "" || one.path == request.path) &&
		strings.HasPrefix(request.path, one.prefix) &&
		(one.suffixes == nil || slices.ContainsFunc(one.suffixes, func(s string) bool { return strings.HasSuffix(request.path, s) })) &&
		one.takesStatus(response.status) &&
		(one.types == nil || slices.ContainsFunc(one.types, func(t string) bool { return isType(response.mediaType, t) }))
}

// takesStatus: a 304 speaks for the 200 that the client has.
func (one *rule) takesStatus(status string) bool {
	if status == "304" {
		status = "200"
	}
	return slices.ContainsFunc(one.statuses, func(s string) bool {
		return s == status || (strings.HasSuffix(s, "xx") && len(status) == 3 && s[0] == status[0])
	})
}

func isType(mediaType, pattern string) bool {
	if kind, all := strings.CutSuffix(pattern, "*"); all {
		return strings.HasPrefix(mediaType, kind)
	}
	return mediaType == pattern
}

// ---- reading ----

// member is one entry of a JSON object, in the order of the text.
type member struct {
	key   string
	value any // nil, bool, json.Number, string, []any or []member
}

func readSettings(source []byte) (*settings, error) {
	if len(source) == 0 {
		return nil, errors.New("there is none")
	}
	value, err := parse(source)
	if err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	members, err := asMap(value, "the configuration")
	if err != nil {
		return nil, err
	}
	found := &settings{}
	for _, one := range members {
		switch one.key {
		case "not_modified":
			found.notModified, err = asBool(one.value, one.key)
		case "rules":
			found.rules, err = readRules(one.value)
		default:
			err = unknown("the configuration", one.key)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(found.rules) == 0 && !found.notModified {
		return nil, errors.New("it has no rules and no not_modified; nothing would be done")
	}
	return found, nil
}

func readRules(value any) ([]*rule, error) {
	items, err := asList(value, "rules")
	if err != nil {
		return nil, err
	}
	if len(items) > mostRules {
		return nil, fmt.Errorf("rules: %d rules, at most %d are allowed", len(items), mostRules)
	}
	rules := make([]*rule, 0, len(items))
	for index, item := range items {
		one, err := readRule(item, fmt.Sprintf("rules[%d]", index))
		if err != nil {
			return nil, err
		}
		rules = append(rules, one)
	}
	return rules, nil
}

func readRule(value any, path string) (*rule, error) {
	members, err := asMap(value, path)
	if err != nil {
		return nil, err
	}
	one := &rule{methods: []string{"GET", "HEAD"}, statuses: []string{"200", "203", "206", "301", "308"}}
	for _, entry := range members {
		at := path + "." + entry.key
		switch entry.key {
		case "path":
			one.path, err = asPath(entry.value, at)
		case "prefix":
			one.prefix, err = asPath(entry.value, at)
		case "suffix":
			one.suffixes, err = asTexts(entry.value, at, notEmpty)
		case "types":
			one.types, err = asTexts(entry.value, at, mediaType)
		case "status":
			one.statuses, err = readStatuses(entry.value, at)
		case "methods":
			one.methods, err = asTexts(entry.value, at, notEmpty)
		case "set":
			one.cacheControl, one.privately, err = readDirectives(entry.value, at)
		case "cdn":
			one.cdn, _, err = readDirectives(entry.value, at)
		case "shared":
			one.shared, err = asBool(entry.value, at)
		case "when":
			one.always, err = asChoice(entry.value, at, "missing", "always")
		case "vary":
			one.vary, err = asTexts(entry.value, at, headerName)
		case "etag":
			one.etag, err = readEtag(entry.value, at)
		default:
			err = unknown(path, entry.key)
		}
		if err != nil {
			return nil, err
		}
	}
	if one.path != "" && one.prefix != "" {
		return nil, fmt.Errorf("%s: has a path and a prefix; keep one", path)
	}
	if one.cdn != "" && one.cacheControl == "" {
		return nil, fmt.Errorf("%s.cdn: goes with set, which is missing", path)
	}
	if one.cacheControl == "" && one.vary == nil && one.etag == etagKeep {
		return nil, fmt.Errorf("%s: has no set, no vary and no etag; it would do nothing", path)
	}
	return one, nil
}

func readEtag(value any, path string) (etagHandling, error) {
	names := []any{"keep", "weaken", "remove"}
	if at := slices.Index(names, value); at >= 0 {
		return etagHandling(at), nil
	}
	return etagKeep, fmt.Errorf("%s: must be one of keep, weaken, remove", path)
}

func readStatuses(value any, path string) ([]string, error) {
	items, err := asList(value, path)
	if err != nil {
		return nil, err
	}
	var statuses []string
	for index, item := range items {
		text := fmt.Sprint(item)
		digits := strings.TrimSuffix(text, "xx")
		number, wrong := strconv.Atoi(digits)
		if digits != text {
			number *= 100
		}
		if wrong != nil || number < 200 || number > 599 || len(text) != 3 {
			return nil, fmt.Errorf("%s[%d]: must be a status from 200 to 599, or a class such as 4xx", path, index)
		}
		statuses = append(statuses, text)
	}
	return statuses, nil
}

// Directives of responses (RFC 9111 section 5.2.2, RFC 5861, RFC 8246), and which of them take seconds.
var directives = map[string]bool{
	"public": false, "private": false, "no-cache": false, "no-store": false, "no-transform": false, "must-revalidate": false,
	"proxy-revalidate": false, "must-understand": false, "immutable": false,
	"max-age": true, "s-maxage": true, "stale-while-revalidate": true, "stale-if-error": true,
}

// readDirectives checks a cache-control. `privately` is what is left of it for the cache of one user.
func readDirectives(value any, path string) (whole, privately string, err error) {
	text, ok := value.(string)
	if !ok || strings.TrimSpace(text) == "" {
		return "", "", fmt.Errorf("%s: must be a text such as 'public, max-age=3600'", path)
	}
	var all, own []string
	seen := map[string]bool{}
	for _, item := range strings.Split(text, ",") {
		item = strings.ToLower(strings.TrimSpace(item))
		name, seconds, hasSeconds := strings.Cut(item, "=")
		takesSeconds, known := directives[name]
		if !known {
			return "", "", fmt.Errorf("%s: %q is no directive of cache-control that this filter knows", path, name)
		}
		if seen[name] {
			return "", "", fmt.Errorf("%s: %s appears twice", path, name)
		}
		seen[name] = true
		if _, wrong := strconv.ParseUint(seconds, 10, 31); takesSeconds != hasSeconds || (hasSeconds && wrong != nil) {
			form := map[bool]string{true: "needs seconds, such as " + name + "=60", false: "takes no value"}[takesSeconds]
			return "", "", fmt.Errorf("%s: %s %s", path, name, form)
		}
		all = append(all, item)
		if name != "public" && name != "s-maxage" && name != "proxy-revalidate" && name != "private" {
			own = append(own, item)
		}
	}
	for _, pair := range [][2]string{{"public", "private"}, {"public", "no-store"}, {"private", "s-maxage"}} {
		if seen[pair[0]] && seen[pair[1]] {
			return "", "", fmt.Errorf("%s: %s and %s contradict each other", path, pair[0], pair[1])
		}
	}
	whole = strings.Join(all, ", ")
	if seen["no-store"] {
		return whole, whole, nil
	}
	return whole, strings.Join(append([]string{"private"}, own...), ", "), nil
}

// ---- JSON ----

// parse reads one value, with objects as lists of members, so that keys keep their order and repeats are seen.
func parse(source []byte) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(source))
	decoder.UseNumber()
	value, err := parseValue(decoder)
	if err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("text after the end of the value")
	}
	return value, nil
}

func parseValue(decoder *json.Decoder) (any, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('['):
		items := []any{}
		for decoder.More() {
			item, err := parseValue(decoder)
			if err != nil {
				return nil, err
			}
			items = append(items, item)
		}
		_, err = decoder.Token()
		return items, err
	case json.Delim('{'):
		members := []member{}
		for decoder.More() {
			key, err := decoder.Token()
			if err != nil {
				return nil, err
			}
			value, err := parseValue(decoder)
			if err != nil {
				return nil, err
			}
			name := key.(string)
			if slices.ContainsFunc(members, func(one member) bool { return one.key == name }) {
				return nil, fmt.Errorf("the key %q appears twice", name)
			}
			members = append(members, member{name, value})
		}
		_, err = decoder.Token()
		return members, err
	}
	return token, nil
}

func unknown(path, key string) error { return fmt.Errorf("%s: unknown key %q", path, key) }

func asMap(value any, path string) ([]member, error) {
	if members, ok := value.([]member); ok {
		return members, nil
	}
	return nil, fmt.Errorf("%s: must be a mapping", path)
}

func asList(value any, path string) ([]any, error) {
	if items, ok := value.([]any); ok && len(items) > 0 {
		return items, nil
	}
	return nil, fmt.Errorf("%s: must be a list that is not empty", path)
}

func asBool(value any, path string) (bool, error) {
	truth, ok := value.(bool)
	if !ok {
		return false, fmt.Errorf("%s: must be true or false", path)
	}
	return truth, nil
}

// asChoice tells whether it is the second.
func asChoice(value any, path, first, second string) (bool, error) {
	if value != first && value != second {
		return false, fmt.Errorf("%s: must be one of %s, %s", path, first, second)
	}
	return value == second, nil
}

func asPath(value any, path string) (string, error) {
	text, ok := value.(string)
	if !ok || !strings.HasPrefix(text, "/") || strings.Contains(text, "?") {
		return "", fmt.Errorf("%s: must begin with '/', and have no query", path)
	}
	return text, nil
}

func asTexts(value any, path string, each func(string) (string, string)) ([]string, error) {
	items, err := asList(value, path)
	if err != nil {
		return nil, err
	}
	var texts []string
	for index, item := range items {
		text, ok := item.(string)
		if !ok {
			return nil, fmt.Errorf("%s[%d]: must be a string", path, index)
		}
		text, problem := each(text)
		if problem != "" {
			return nil, fmt.Errorf("%s[%d]: %q %s", path, index, text, problem)
		}
		texts = append(texts, text)
	}
	return texts, nil
}

func notEmpty(text string) (string, string) {
	if text == "" {
		return text, "is empty"
	}
	return text, ""
}

func mediaType(text string) (string, string) {
	kind, rest, ok := strings.Cut(text, "/")
	if !ok || kind == "" || rest == "" || strings.ContainsAny(text, "; ") {
		return text, "is not a media type such as text/css or image/*"
	}
	return strings.ToLower(text), ""
}

func headerName(text string) (string, string) {
	for _, c := range text {
		if c > 'z' || !strings.ContainsRune("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", c) {
			return text, "is not the name of a header"
		}
	}
	if text == "" {
		return text, "is not the name of a header"
	}
	return strings.ToLower(text), ""
}
