//! Asks the cluster "service" about every request (a GET of /auth) and lets the request go on when a 200 has come.

const std = @import("std");
const pw = @import("proxy_wasm");

pub const panic = pw.panic;

const service = "service";
const head = [_]pw.Header{ .{ ":method", "GET" }, .{ ":path", "/auth" }, .{ ":authority", service } };

var stream_of_call: pw.ContextMap(u32) = .{};

export fn proxy_on_request_headers(context: u32, _: u32, _: bool) pw.Action {
    if (pw.httpCall(service, &head, "", 5000)) |token| {
        stream_of_call.put(token, context);
    } else {
        pw.sendLocalResponse(500, "callout_refused", "", &.{});
    }
    return .pause;
}

export fn proxy_on_response_headers(_: u32, _: u32, _: bool) pw.Action {
    pw.response_headers.add("x-probe", "1");
    return .proceed;
}

export fn proxy_on_http_call_response(_: u32, token: u32, _: u32, _: usize, _: u32) void {
    const context = (stream_of_call.get(token) orelse return).*;
    _ = stream_of_call.remove(token);
    const status = pw.HeaderMap.http_call_response.get(":status");
    defer if (status) |text| pw.free(text);
    if (!pw.setEffectiveContext(context)) return;
    if (std.mem.eql(u8, status orelse "", "200")) {
        pw.continueStream(.request);
    } else {
        pw.sendLocalResponse(503, "callout_failed", "", &.{});
    }
}
