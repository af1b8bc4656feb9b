import { log } from "penstock:filter/logging@0.1.0";

const goesOn = { tag: "continue" };
const asItIs = { edits: [], action: goesOn };
let greeting = "world";

export const httpFilter = {
  // Callbacks that are not wanted are never called.
  metadata() {
    return { name: "@NAME@", version: "0.1.0", wants: { requestHeaders: true, responseHeaders: true } };
  },

  // What is thrown is the reason for which the configuration is refused.
  configure(text) {
    if (text.length > 64) throw "the greeting is longer than 64 bytes";
    if (text) greeting = text;
  },

  onRequestHeaders(stream, headers, endOfStream) {
    if (!headers.some(([name]) => name === "x-block")) return asItIs;
    log("info", "blocked a request");
    const answer = { status: 403, headers: [], body: { tag: "text", val: "blocked\n" }, details: "blocked" };
    return { edits: [], action: { tag: "respond", val: answer } };
  },

  onResponseHeaders(stream, headers, endOfStream) {
    return { edits: [{ tag: "set", val: ["x-hello", greeting] }], action: goesOn };
  },

  onRequestBody: () => ({ action: goesOn }),
  onRequestTrailers: () => asItIs,
  onResponseBody: () => ({ action: goesOn }),
  onResponseTrailers: () => asItIs,
  onHttpResponse: () => asItIs,
  onLog() {},
};
