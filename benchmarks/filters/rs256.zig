//! Checks the RS256 signature (RSA-2048, PKCS #1 v1.5, SHA-256) of a request's bearer token (RFC 7515, compact); without
//! a good one, 401. The configuration is the key's modulus in base64url; its exponent is 65537.

const std = @import("std");
const pw = @import("proxy_wasm");
const rsa = std.crypto.Certificate.rsa;
const Sha256 = std.crypto.hash.sha2.Sha256;
const base64 = std.base64.url_safe_no_pad.Decoder;

pub const panic = pw.panic;

const size = 256;
const scheme = "Bearer ";
var key: ?rsa.PublicKey = null;

export fn proxy_on_configure(_: u32, length: usize) bool {
    const text = pw.Buffer.plugin_configuration.read(0, length);
    defer pw.free(text);
    const modulus = decode(text) orelse return false;
    key = rsa.PublicKey.fromBytes(&.{ 1, 0, 1 }, &modulus) catch return false;
    return true;
}

export fn proxy_on_request_headers(_: u32, _: u32, _: bool) pw.Action {
    const value = pw.request_headers.get("authorization") orelse return refuse();
    defer pw.free(value);
    if (!std.mem.startsWith(u8, value, scheme) or !signed(value[scheme.len..])) return refuse();
    return .proceed;
}

export fn proxy_on_response_headers(_: u32, _: u32, _: bool) pw.Action {
    pw.response_headers.add("x-probe", "1");
    return .proceed;
}

fn signed(token: []const u8) bool {
    const dot = std.mem.lastIndexOfScalar(u8, token, '.') orelse return false;
    const signature = decode(token[dot + 1 ..]) orelse return false;
    rsa.PKCS1v1_5Signature.verify(size, &signature, token[0..dot], key orelse return false, Sha256) catch return false;
    return true;
}

fn decode(text: []const u8) ?[size]u8 {
    var bytes: [size]u8 = undefined;
    const length = base64.calcSizeForSlice(text) catch return null;
    if (length != size) return null;
    base64.decode(&bytes, text) catch return null;
    return bytes;
}

fn refuse() pw.Action {
    pw.sendLocalResponse(401, "no_token", "", &.{});
    return .pause;
}
