//! SHA-256 of a response's body while it streams through. The configuration is the digest (hex) that it must have; a
//! body with another one ends in a reset, so every answer that arrives was hashed.

const std = @import("std");
const pw = @import("proxy_wasm");
const Sha256 = std.crypto.hash.sha2.Sha256;

pub const panic = pw.panic;

var expected: [Sha256.digest_length]u8 = @splat(0);
var running: pw.ContextMap(Sha256) = .{};

export fn proxy_on_configure(_: u32, length: usize) bool {
    const text = pw.Buffer.plugin_configuration.read(0, length);
    defer pw.free(text);
    const digest = std.fmt.hexToBytes(&expected, text) catch return false;
    return digest.len == expected.len;
}

export fn proxy_on_response_headers(context: u32, _: u32, end_of_stream: bool) pw.Action {
    pw.response_headers.add("x-probe", "1");
    if (!end_of_stream) running.put(context, Sha256.init(.{}));
    return .proceed;
}

export fn proxy_on_response_body(context: u32, length: usize, end_of_stream: bool) pw.Action {
    const hash = running.get(context) orelse return .proceed;
    const piece = pw.Buffer.response_body.read(0, length);
    defer pw.free(piece);
    hash.update(piece);
    if (end_of_stream and !std.mem.eql(u8, &hash.finalResult(), &expected)) pw.closeStream(.response);
    return .proceed;
}

export fn proxy_on_delete(context: u32) void {
    _ = running.remove(context);
}

/// The work of one request without a host: what benchmarks/metering.py times. A byte of the digest.
export fn work(length: usize) u32 {
    const body = pw.allocator.alloc(u8, length) catch pw.outOfMemory();
    defer pw.allocator.free(body);
    @memset(body, 'a');
    var digest: [Sha256.digest_length]u8 = undefined;
    Sha256.hash(body, &digest, .{});
    return digest[0];
}
