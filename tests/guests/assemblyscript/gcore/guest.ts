// The guest of ../../sdk_guests.md on G-Core's AssemblyScript SDK.
export * from "@gcoredev/proxy-wasm-sdk-as/assembly/proxy";
import {
  BaseContext,
  BufferTypeValues,
  Context,
  Counter,
  FilterDataStatusValues,
  FilterHeadersStatusValues,
  Gauge,
  get_buffer_bytes,
  get_shared_data,
  Histogram,
  log,
  LogLevelValues,
  makeHeaderPair,
  registerRootContext,
  RootContext,
  send_local_response,
  set_buffer_bytes,
  set_shared_data,
  set_tick_period_milliseconds,
  stream_context,
  WasmResultValues,
} from "@gcoredev/proxy-wasm-sdk-as/assembly";

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
    if (++this.ticks == 3) log(LogLevelValues.info, "third tick");
  }
}

class Guest extends Context {
  path: string = "";
  stored: WasmResultValues = WasmResultValues.Ok;

  root(): GuestRoot {
    return this.root_context as GuestRoot;
  }

  onRequestHeaders(count: u32, end_of_stream: bool): FilterHeadersStatusValues {
    const headers = stream_context.headers.request;
    const root = this.root();
    this.path = headers.get(":path");
    root.requests.increment(1);
    root.open.increment(2);
    root.sizes.record(root.sizes.metric_id, 7);
    if (this.path == "/headers") {
      headers.add("x-count", headers.get_headers().length.toString());
      headers.replace("x-replace", "new");
      headers.remove("x-remove");
    } else if (this.path == "/body") {
      headers.remove("content-length");
    } else if (this.path == "/counter") {
      headers.add("x-shared", this.count().toString());
    } else if (this.path == "/auth") {
      const call = [
        makeHeaderPair(":method", "GET"),
        makeHeaderPair(":path", headers.get("x-ask")),
        makeHeaderPair(":authority", "auth"),
      ];
      const result = root.httpCall("service", call, new ArrayBuffer(0), [], 2000, this, answered);
      return result == WasmResultValues.Ok ? FilterHeadersStatusValues.StopIteration : FilterHeadersStatusValues.Continue;
    }
    return FilterHeadersStatusValues.Continue;
  }

  onRequestBody(size: usize, end_of_stream: bool): FilterDataStatusValues {
    if (this.path != "/body") return FilterDataStatusValues.Continue;
    if (!end_of_stream) return FilterDataStatusValues.StopIterationAndBuffer;
    const body = String.UTF8.decode(get_buffer_bytes(BufferTypeValues.HttpRequestBody, 0, u32(size)));
    set_buffer_bytes(BufferTypeValues.HttpRequestBody, 0, u32(size), String.UTF8.encode("[" + body.toUpperCase() + "]"));
    return FilterDataStatusValues.Continue;
  }

  onResponseHeaders(count: u32, end_of_stream: bool): FilterHeadersStatusValues {
    stream_context.headers.response.add("x-hello", this.root_context.getConfiguration());
    return FilterHeadersStatusValues.Continue;
  }

  count(): u32 {
    let next: u32 = 0;
    do {
      const found = get_shared_data("count");
      const value = found.value;
      next = value == null ? 1 : Uint32Array.wrap(value)[0] + 1;
      const data = new ArrayBuffer(4);
      Uint32Array.wrap(data)[0] = next;
      this.stored = set_shared_data("count", data, value == null ? u32.MAX_VALUE : found.cas);
    } while (this.stored == WasmResultValues.CasMismatch);
    return next;
  }
}

function answered(origin: BaseContext, headers: u32, body_size: usize, trailers: u32): void {
  const status = stream_context.headers.http_callback.get(":status");
  if (status == "200") {
    stream_context.headers.request.add("x-user", stream_context.headers.http_callback.get("x-user"));
    origin.continueRequest();
  } else {
    send_local_response(403, "denied", String.UTF8.encode("no: " + status), [], -1);
  }
}

registerRootContext((context_id: u32) => new GuestRoot(context_id), "guest");
