//! Asks the cluster "service" about every request (a GET of /auth) and lets the request go on when a 200 has come.

const std = @import("std");
const pw = @import("proxy_wasm");

pub const panic = pw.panic;

extern "env" fn proxy_http_call(
    upstream: [*]const u8,
    upstream_length: usize,
    headers: [*]const u8,
    headers_length: usize,
    body: ?[*]const u8,
    body_length: usize,
    trailers: ?[*]const u8,
    trailers_length: usize,
    timeout_milliseconds: u32,
    token: *u32,
) u32;
extern "env" fn proxy_send_local_response(
    status: u32,
    details: [*]const u8,
    details_length: usize,
    body: [*]const u8,
    body_length: usize,
    headers: [*]const u8,
    headers_length: usize,
    grpc_status: i32,
) u32;
extern "env" fn proxy_continue_stream(stream: u32) u32;
extern "env" fn proxy_set_effective_context(context: u32) u32;
extern "env" fn proxy_get_header_map_value(map: u32, key: [*]const u8, key_length: usize, value: *?[*]u8, length: *usize) u32;

const call_response_headers = 6;
const service = "service";
const head = serialized(&.{ .{ ":method", "GET" }, .{ ":path", "/auth" }, .{ ":authority", "service" } });

var stream_of_call: pw.ContextMap(u32) = .{};

export fn proxy_on_request_headers(context: u32, _: u32, _: bool) pw.Action {
    var token: u32 = 0;
    const status = proxy_http_call(service, service.len, &head, head.len, null, 0, null, 0, 5000, &token);
    if (status != 0) {
        answer(500, "callout_refused");
        return .pause;
    }
    stream_of_call.put(token, context);
    return .pause;
}

export fn proxy_on_response_headers(_: u32, _: u32, _: bool) pw.Action {
    pw.response_headers.add("x-probe", "1");
    return .proceed;
}

export fn proxy_on_http_call_response(_: u32, token: u32, _: u32, _: usize, _: u32) void {
    const context = (stream_of_call.get(token) orelse return).*;
    _ = stream_of_call.remove(token);
    var data: ?[*]u8 = null;
    var length: usize = 0;
    const status = proxy_get_header_map_value(call_response_headers, ":status", 7, &data, &length);
    const found: []u8 = if (data) |bytes| bytes[0..length] else &.{};
    defer pw.free(found);
    _ = proxy_set_effective_context(context);
    if (status == 0 and std.mem.eql(u8, found, "200")) {
        _ = proxy_continue_stream(0);
    } else {
        answer(503, "callout_failed");
    }
}

/// An answer from here, without a body or headers.
fn answer(status: u32, details: []const u8) void {
    _ = proxy_send_local_response(status, details.ptr, details.len, details.ptr, 0, details.ptr, 0, -1);
}

/// A pair block at compile time: u32 count; u32 name length, u32 value length each; name, NUL, value, NUL each.
fn serialized(comptime pairs: []const [2][]const u8) [size(pairs)]u8 {
    var block: [size(pairs)]u8 = undefined;
    var writer = std.Io.Writer.fixed(&block);
    writer.writeInt(u32, pairs.len, .little) catch unreachable;
    for (pairs) |pair| {
        for (pair) |text| writer.writeInt(u32, text.len, .little) catch unreachable;
    }
    for (pairs) |pair| {
        for (pair) |text| {
            writer.writeAll(text) catch unreachable;
            writer.writeByte(0) catch unreachable;
        }
    }
    return block;
}

fn size(comptime pairs: []const [2][]const u8) usize {
    var bytes: usize = 4;
    for (pairs) |pair| bytes += 8 + pair[0].len + 1 + pair[1].len + 1;
    return bytes;
}
