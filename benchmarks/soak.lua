-- wrk script of the soak: most requests have the password, every tenth has none (basic-auth answers it), every fiftieth asks for
-- the connection to be closed. Answers other than 200 and 401 are counted as wrong.
local threads = {}
count, wrong = 0, 0 -- of each thread; `done` reads them
function setup(thread) table.insert(threads, thread) end
function init(args)
  count, wrong = 0, 0
  good = wrk.format("GET", "/hello?name=world", {["Host"] = "soak", ["Authorization"] = "Basic YWRhOmxvdmVsYWNl"})
  without = wrk.format("GET", "/hello?name=world", {["Host"] = "soak"})
  last = wrk.format("GET", "/hello", {["Host"] = "soak", ["Authorization"] = "Basic YWRhOmxvdmVsYWNl", ["Connection"] = "close"})
end
function request()
  count = count + 1
  if count % 50 == 0 then return last end
  if count % 10 == 0 then return without end
  return good
end
function response(status) if status ~= 200 and status ~= 401 then wrong = wrong + 1 end end
function done(summary)
  local bad = 0
  for _, thread in ipairs(threads) do bad = bad + thread:get("wrong") end
  local e = summary.errors
  io.write(string.format('\nFIGURES {"requests": %d, "seconds": %.6f, "wrong": %d, "connect": %d, "timeout": %d}\n',
    summary.requests, summary.duration / 1e6, bad, e.connect, e.timeout))
end
