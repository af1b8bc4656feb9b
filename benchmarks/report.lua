-- wrk script: sends a browser-like small GET on every connection and prints one JSON line with exact figures at the end.
wrk.headers["User-Agent"] = "penstock-bench/1"
wrk.headers["Accept"] = "*/*"
wrk.headers["Accept-Encoding"] = "gzip, br"

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nFIGURES {"requests": %d, "seconds": %.6f, "bytes": %d, "p50_us": %d, "p90_us": %d, "p99_us": %d, "max_us": %d, ' ..
    '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50), latency:percentile(90),
    latency:percentile(99), latency.max, e.connect, e.read, e.write, e.status, e.timeout))
end
