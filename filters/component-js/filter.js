// A token check as a component in JavaScript: without the token 401, with it the request goes on with x-client, and the
// service's JSON gets a field. Configured with {"token": "...", "client": "..."}.

import { get as config } from "penstock:filter/config@0.1.0";
import { log } from "penstock:filter/logging@0.1.0";

const unchanged = { tag: "continue" };

function header(headers, name) {
  return headers.find(([key]) => key === name)?.[1];
}

export const httpFilter = {
  metadata() {
    return {
      name: "token-check",
      version: "1.0.0",
      wants: { requestHeaders: true, responseHeaders: true, responseBody: true },
    };
  },

  configure(text) {
    const token = config("token");
    if (!token) throw "the config has no token";
    wanted = `Bearer ${token}`;
    client = config("client") ?? client;
  },

  onRequestHeaders(stream, headers, endOfStream) {
    if (header(headers, "authorization") !== wanted) {
      log("info", `refused ${header(headers, ":path")}`);
      const body = { tag: "text", val: "no valid token" };
      const answer = { status: 401, headers: [["www-authenticate", "Bearer"]], body, details: "no_token" };
      return { edits: [], action: { tag: "respond", val: answer } };
    }
    const edits = [
      { tag: "remove", val: "authorization" },
      { tag: "set", val: ["x-client", client] },
    ];
    return { edits, action: unchanged };
  },

  onResponseHeaders(stream, headers, endOfStream) {
    // The body's length will change.
    const edits = isJson(headers) ? [{ tag: "remove", val: "content-length" }] : [];
    if (edits.length) json.add(stream);
    return { edits, action: unchanged };
  },

  onResponseBody(stream, chunk, endOfStream) {
    if (!json.has(stream)) return { action: unchanged };
    if (!endOfStream) return { action: { tag: "pause" } };
    json.delete(stream);
    if (chunk.tag !== "text") return { action: unchanged };
    try {
      const found = JSON.parse(chunk.val);
      if (found?.constructor !== Object) return { action: unchanged };
      return { replace: { tag: "text", val: JSON.stringify({ ...found, checked: true }) }, action: unchanged };
    } catch {
      return { action: unchanged };
    }
  },

  onRequestBody: () => ({ action: unchanged }),
  onRequestTrailers: () => ({ edits: [], action: unchanged }),
  onResponseTrailers: () => ({ edits: [], action: unchanged }),
  onHttpResponse: () => ({ edits: [], action: unchanged }),
  onLog() {},
};

// An instance has one configuration for life.
let wanted;
let client = "unknown";

// Streams whose answer is JSON: instances serve many at once.
const json = new Set();

function isJson(headers) {
  return (header(headers, "content-type") ?? "").startsWith("application/json");
}
