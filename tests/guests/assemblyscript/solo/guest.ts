// The guest of ../../sdk_guests.md on Solo's AssemblyScript SDK, which has neither bodies that can be set nor shared data.
export * from "@solo-io/proxy-runtime/proxy";
import {
  Context,
  Counter,
  FilterHeadersStatusValues,
  Gauge,
  Headers,
  HeaderPair,
  Histogram,
  log,
  LogLevelValues,
  registerRootContext,
  RootContext,
  send_local_response,
  stream_context,
  WasmResultValues,
} from "@solo-io/proxy-runtime";
import { set_tick_period_milliseconds } from "@solo-io/proxy-runtime/runtime";

class GuestRoot extends RootContext {
  requests: Counter = new Counter("sdk_requests");
  open: Gauge = new Gauge("sdk_open");
  sizes: Histogram = new Histogram("sdk_sizes");
  ticks: u32 = 0;

  createContext(context_id: u32): Context {
    return new Guest(context_id, this);
  }

  onConfigure(size: u32): bool {
    const good = super.onConfigure(size);
    log(LogLevelValues.info, "configured: " + this.getConfiguration());
    set_tick_period_milliseconds(50);
    return good;
  }

  onTick(): void {
    this.ticks += 1;
    if (this.ticks == 3) log(LogLevelValues.info, "third tick");
  }
}

class Guest extends Context {
  constructor(context_id: u32, root_context: GuestRoot) {
    super(context_id, root_context);
  }

  onRequestHeaders(count: u32, end_of_stream: bool): FilterHeadersStatusValues {
    const headers = stream_context.headers.request;
    const root = changetype<GuestRoot>(this.root_context);
    const path = headers.get(":path");
    root.requests.increment(1);
    root.open.increment(2);
    root.sizes.record(root.sizes.metric_id, 7);
    if (path == "/headers") {
      headers.add("x-count", headers.get_headers().length.toString());
      headers.replace("x-replace", "new");
      headers.remove("x-remove");
    } else if (path == "/auth") {
      const call: Headers = [pair(":method", "GET"), pair(":path", headers.get("x-ask")), pair(":authority", "auth")];
      const result = root.httpCall("service", call, new ArrayBuffer(0), [], 2000, this, answered);
      return result == WasmResultValues.Ok ? FilterHeadersStatusValues.StopIteration : FilterHeadersStatusValues.Continue;
    }
    return FilterHeadersStatusValues.Continue;
  }

  onResponseHeaders(count: u32, end_of_stream: bool): FilterHeadersStatusValues {
    stream_context.headers.response.add("x-hello", this.root_context.getConfiguration());
    return FilterHeadersStatusValues.Continue;
  }
}

function pair(name: string, value: string): HeaderPair {
  return new HeaderPair(String.UTF8.encode(name), String.UTF8.encode(value));
}

function answered(origin: Context, headers: u32, body_size: usize, trailers: u32): void {
  const status = stream_context.headers.http_callback.get(":status");
  if (status == "200") {
    stream_context.headers.request.add("x-user", stream_context.headers.http_callback.get("x-user"));
    origin.continueRequest();
  } else {
    send_local_response(403, "denied", String.UTF8.encode("no: " + status), [], -1);
  }
}

registerRootContext((context_id: u32) => { return new GuestRoot(context_id); }, "guest");
