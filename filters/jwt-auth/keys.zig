//! JSON Web Keys (RFC 7517, 7518) that can verify a token, and nothing else.

const std = @import("std");
const rsa = @import("rsa.zig");
const p256 = @import("p256.zig");

pub const Algorithm = enum { HS256, RS256, ES256 };
pub const Error = error{ Unsupported, Malformed, OutOfMemory };

const HmacSha256 = std.crypto.auth.hmac.sha2.HmacSha256;

/// A key is for one algorithm, which its type decides: a token cannot choose to have a public key taken for a secret.
pub const Key = struct {
    id: ?[]const u8,
    material: union(Algorithm) { HS256: []const u8, RS256: rsa.Key, ES256: p256.Key },

    pub fn algorithm(self: *const Key) Algorithm {
        return self.material;
    }

    pub fn verify(self: *Key, message: []const u8, signature: []const u8) bool {
        switch (self.material) {
            .HS256 => |secret| {
                if (signature.len != HmacSha256.mac_length) return false;
                var mac: [HmacSha256.mac_length]u8 = undefined;
                HmacSha256.create(&mac, message, secret);
                return std.crypto.timing_safe.eql([HmacSha256.mac_length]u8, mac, signature[0..mac.len].*);
            },
            .RS256 => |*key| return key.verify(message, signature),
            .ES256 => |*key| return key.verify(message, signature),
        }
    }
};

/// A key from its JSON object. Unsupported: it is for something else, and may be passed over. `secrets`: whether a shared
/// secret may be among them (RFC 7518 section 3.2: of 32 bytes or more).
pub fn read(memory: std.mem.Allocator, jwk: std.json.ObjectMap, secrets: bool) Error!Key {
    if (jwk.get("use")) |use| if (use != .string or !std.mem.eql(u8, use.string, "sig")) return error.Unsupported;
    const kind = try string(jwk, "kty");
    var key: Key = undefined;
    if (std.mem.eql(u8, kind, "RSA")) {
        const modulus = try bytes(memory, jwk, "n");
        key.material = .{ .RS256 = rsa.Key.init(modulus, try bytes(memory, jwk, "e")) orelse return error.Malformed };
    } else if (std.mem.eql(u8, kind, "EC")) {
        if (!std.mem.eql(u8, try string(jwk, "crv"), "P-256")) return error.Unsupported;
        const x = try bytes(memory, jwk, "x");
        key.material = .{ .ES256 = p256.Key.init(x, try bytes(memory, jwk, "y")) orelse return error.Malformed };
    } else if (std.mem.eql(u8, kind, "oct") and secrets) {
        const secret = try bytes(memory, jwk, "k");
        if (secret.len < 32) return error.Malformed;
        key.material = .{ .HS256 = secret };
    } else return error.Unsupported;
    if (jwk.get("alg")) |name| {
        if (name != .string) return error.Malformed;
        if (!std.mem.eql(u8, name.string, @tagName(key.material))) return error.Unsupported;
    }
    key.id = if (jwk.get("kid")) |id| if (id == .string) id.string else return error.Malformed else null;
    return key;
}

fn string(jwk: std.json.ObjectMap, name: []const u8) Error![]const u8 {
    const value = jwk.get(name) orelse return error.Malformed;
    return if (value == .string) value.string else error.Malformed;
}

fn bytes(memory: std.mem.Allocator, jwk: std.json.ObjectMap, name: []const u8) Error![]const u8 {
    return decode(memory, try string(jwk, name)) orelse error.Malformed;
}

/// base64url without padding (RFC 7515 section 2); null if it is something else.
pub fn decode(memory: std.mem.Allocator, text: []const u8) ?[]u8 {
    const decoder = std.base64.url_safe_no_pad.Decoder;
    const length = decoder.calcSizeForSlice(text) catch return null;
    const result = memory.alloc(u8, length) catch return null;
    decoder.decode(result, text) catch return null;
    return result;
}
