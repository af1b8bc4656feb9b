package main

import (
	"strings"
	"time"
)

// response is what the filter reads of a response, and what it has written to it.
type response struct {
	status, mediaType                      string
	cacheControl, vary, etag, lastModified string
	date, expires, contentLocation         string
	hasCacheControl, setsCookie            bool
}

func readResponse(headers [][2]string) *response {
	r := &response{}
	for _, field := range headers {
		name, value := field[0], field[1]
		switch name {
		case ":status":
			r.status = value
		case "content-type":
			mediaType, _, _ := strings.Cut(value, ";")
			r.mediaType = strings.ToLower(strings.TrimSpace(mediaType))
		case "cache-control":
			r.hasCacheControl = true
			r.cacheControl = joined(r.cacheControl, value)
		case "vary":
			r.vary = joined(r.vary, value)
		case "etag":
			r.etag = value
		case "last-modified":
			r.lastModified = value
		case "date":
			r.date = value
		case "expires":
			r.expires = value
		case "content-location":
			r.contentLocation = value
		case "set-cookie", "set-cookie2":
			r.setsCookie = true
		}
	}
	return r
}

// apply writes what the rule says to the response.
func (one *rule) apply(request *request, r *response) {
	if one.cacheControl != "" && (one.always || !r.hasCacheControl) {
		r.cacheControl = one.cacheControl
		// RFC 9111 section 3.5, and a cookie that a shared cache would hand to everybody.
		if !one.shared && (request.authorized || r.setsCookie) {
			r.cacheControl = one.privately
		}
		set("cache-control", r.cacheControl)
		if r.expires != "" {
			remove("expires")
			r.expires = ""
		}
		if one.cdn != "" && r.cacheControl == one.cacheControl {
			set("cdn-cache-control", one.cdn)
		}
	}
	if merged := mergeVary(r.vary, one.vary); merged != r.vary {
		r.vary = merged
		set("vary", merged)
	}
	if r.etag == "" {
		return
	}
	switch one.etag {
	case etagRemove:
		r.etag = ""
		remove("etag")
	case etagWeaken:
		if !strings.HasPrefix(r.etag, "W/") {
			r.etag = "W/" + r.etag
			set("etag", r.etag)
		}
	}
}

// mergeVary appends those names that are not there. A star says that everything matters, so nothing can be added.
func mergeVary(present string, names []string) string {
	for _, name := range names {
		if !hasItem(present, name) && !hasItem(present, "*") {
			present = joined(present, name)
		}
	}
	return present
}

func hasItem(list, item string) bool {
	for list != "" {
		var one string
		one, list, _ = strings.Cut(list, ",")
		if strings.EqualFold(strings.TrimSpace(one), item) {
			return true
		}
	}
	return false
}

// stillHas tells whether the client has what a 200 brings (RFC 9110 section 13.2.2: if-none-match, else
// if-modified-since).
func (r *request) stillHas(found *response) bool {
	if found.status != "200" || (r.method != "GET" && r.method != "HEAD") {
		return false
	}
	if r.ifNoneMatch != "" {
		return found.etag != "" && matchesAny(r.ifNoneMatch, found.etag)
	}
	if r.ifModified == "" || found.lastModified == "" {
		return false
	}
	since, err := time.Parse(httpDate, r.ifModified)
	modified, wrong := time.Parse(httpDate, found.lastModified)
	return err == nil && wrong == nil && !modified.After(since)
}

const httpDate = "Mon, 02 Jan 2006 15:04:05 GMT"

// matchesAny compares weakly (RFC 9110 section 8.8.3.2) with each entity tag of a list. A tag can have commas in it.
func matchesAny(list, etag string) bool {
	etag = strings.TrimPrefix(etag, "W/")
	for {
		list = strings.TrimLeft(list, " \t,")
		if strings.HasPrefix(list, "*") {
			return true
		}
		list = strings.TrimPrefix(list, "W/")
		if !strings.HasPrefix(list, `"`) {
			return false
		}
		end := strings.IndexByte(list[1:], '"')
		if end < 0 {
			return false
		}
		if list[:end+2] == etag {
			return true
		}
		list = list[end+2:]
	}
}

// kept is what a 304 repeats of the 200 (RFC 9110 section 15.4.5).
func (r *response) kept() [][2]string {
	var headers [][2]string
	for _, field := range [][2]string{
		{"cache-control", r.cacheControl}, {"content-location", r.contentLocation}, {"date", r.date}, {"etag", r.etag},
		{"expires", r.expires}, {"vary", r.vary}, {"last-modified", r.lastModified},
	} {
		if field[1] != "" {
			headers = append(headers, field)
		}
	}
	return headers
}
