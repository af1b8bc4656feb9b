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
let greeting: ArrayBuffer = bytes("world");

export function proxy_on_context_create(context: u32, parent: u32): void {}

export function proxy_on_configure(root: u32, size: u32): u32 {
  if (size > LONGEST) {
    log(LogLevel.Error, "the greeting is longer than " + LONGEST.toString() + " bytes");
    return 0;
  }
  const configuration = size > 0 ? pluginConfiguration() : null;
  if (configuration !== null) greeting = configuration;
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
  responseHeaders.set(HELLO, greeting);
  collectGarbage();
  return Action.Continue;
}
