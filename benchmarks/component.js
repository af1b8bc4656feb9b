// The filter of component.c's two edits, in JavaScript: nothing but what a call costs.
const goesOn = { tag: "continue" };
const asItIs = { edits: [], action: goesOn };

export const httpFilter = {
  metadata: () => ({ name: "bench", version: "1", wants: { requestHeaders: true, requestBody: true, log: true } }),
  configure() {},
  onRequestHeaders: () => ({
    edits: [{ tag: "set", val: ["x-client", "ada"] }, { tag: "remove", val: "x-b" }],
    action: goesOn,
  }),
  onRequestBody: (stream, chunk) => ({ replace: chunk, action: goesOn }),
  onRequestTrailers: () => asItIs,
  onResponseHeaders: () => asItIs,
  onResponseBody: () => ({ action: goesOn }),
  onResponseTrailers: () => asItIs,
  onHttpResponse: () => asItIs,
  onLog() {},
};
