//! Looks at every byte of a response while it streams through, and changes none: counts its lines.

const pw = @import("proxy_wasm");

pub const panic = pw.panic;

var lines: u64 = 0;

export fn proxy_on_response_headers(_: u32, _: u32, _: bool) pw.Action {
    pw.response_headers.add("x-probe", "1");
    return .proceed;
}

export fn proxy_on_response_body(_: u32, size: usize, _: bool) pw.Action {
    const piece = pw.Buffer.response_body.read(0, size);
    defer pw.free(piece);
    for (piece) |byte| lines +%= @intFromBool(byte == '\n');
    return .proceed;
}

/// So that the counting is not optimised away.
export fn lines_seen() u64 {
    return lines;
}
