import { Action, bytes, collectGarbage, log, LogLevel, pluginConfiguration, requestHeaders, responseHeaders } from "./proxy_wasm";
export { proxy_abi_version_0_2_1, proxy_on_memory_allocate } from "./proxy_wasm";

@external("env", "proxy_send_local_response")
declare function sendLocalResponse(
  status: u32, details: usize, detailsLength: usize, body: usize, bodyLength: usize, headers: usize, headersLength: usize,
  grpcStatus: i32,
): u32;

const LONGEST: u32 = 64;
const HELLO = bytes("x-hello");
const BLOCK = bytes("x-block");
const BLOCKED = bytes("blocked");
const BODY = bytes("blocked\n");
const WORLD = bytes("world");
// Each configuration, a route's own too, has a root context, and all of them share this VM.
const greetings = new Map<u32, ArrayBuffer>(); // by root
const roots = new Map<u32, u32>(); // of each stream

export function proxy_on_context_create(context: u32, parent: u32): void {
  if (parent != 0) roots.set(context, parent);
}

export function proxy_on_delete(context: u32): void {
  roots.delete(context);
}

export function proxy_on_configure(root: u32, size: u32): u32 {
  if (size > LONGEST) {
    log(LogLevel.Error, "the greeting is longer than " + LONGEST.toString() + " bytes");
    return 0;
  }
  const configuration = size > 0 ? pluginConfiguration() : null;
  greetings.set(root, configuration !== null ? configuration : WORLD);
  return 1;
}

export function proxy_on_request_headers(context: u32, count: u32, endOfStream: u32): u32 {
  if (requestHeaders.get(BLOCK) === null) return Action.Continue;
  log(LogLevel.Info, "blocked a request");
  sendLocalResponse(
    403, changetype<usize>(BLOCKED), BLOCKED.byteLength, changetype<usize>(BODY), BODY.byteLength, 0, 0, -1,
  );
  collectGarbage();
  return Action.Pause;
}

export function proxy_on_response_headers(context: u32, count: u32, endOfStream: u32): u32 {
  if (roots.has(context)) responseHeaders.set(HELLO, greetings.get(roots.get(context)));
  collectGarbage();
  return Action.Continue;
}
