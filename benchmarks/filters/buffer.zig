//! Holds a response's body until all of it is there, then looks at it whole and lets it go.

const std = @import("std");
const pw = @import("proxy_wasm");

pub const panic = pw.panic;

var lines: u64 = 0;

export fn proxy_on_response_headers(_: u32, _: u32, _: bool) pw.Action {
    pw.response_headers.add("x-probe", "1");
    return .proceed;
}

export fn proxy_on_response_body(_: u32, _: usize, end_of_stream: bool) pw.Action {
    if (!end_of_stream) return .pause;
    const body = pw.Buffer.response_body.read(0, std.math.maxInt(u32));
    defer pw.free(body);
    for (body) |byte| lines +%= @intFromBool(byte == '\n');
    return .proceed;
}

/// So that the counting is not optimised away.
export fn lines_seen() u64 {
    return lines;
}
