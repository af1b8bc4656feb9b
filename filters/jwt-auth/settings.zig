//! Reading jwt-auth's configuration.

const std = @import("std");
const config = @import("config");
const keys = @import("keys.zig");
const Root = @import("jwt_auth.zig").Root;
const Remote = @import("remote.zig").Remote;

const second = std.time.ns_per_s;

pub fn read(reader: config.Reader) config.Error!Root {
    const settings = try reader.object();
    try reader.onlyKeys(settings, "the configuration", &.{
        "keys",    "jwks",   "issuers", "audiences",     "leeway", "require_exp", "optional",
        "forward", "cookie", "header",  "claim_headers", "realm",
    });
    var root = Root{
        .keys = &.{},
        .remote = null,
        .issuers = &.{},
        .audiences = &.{},
        .leeway = 0,
        .need_expiry = true,
        .optional = false,
        .forward = false,
        .cookie = null,
        .header = "authorization",
        .claims = &.{},
        .claim_headers = &.{},
        .realm = "restricted",
        .verified = try reader.arena.create(std.meta.Child(@FieldType(Root, "verified"))),
    };
    root.forgetVerified();
    if (settings.get("keys")) |value| root.keys = try readKeys(reader, value);
    if (settings.get("jwks")) |value| root.remote = try readRemote(reader, value);
    if (root.keys.len == 0 and root.remote == null) return reader.refuse("neither keys nor jwks, nobody could get in", .{});
    if (settings.get("issuers")) |value| root.issuers = try reader.asStrings(value, "issuers", "issuers[]");
    if (settings.get("audiences")) |value| root.audiences = try reader.asStrings(value, "audiences", "audiences[]");
    if (settings.get("leeway")) |value| root.leeway = try reader.asInteger(value, "leeway", 0, 3600);
    if (settings.get("require_exp")) |value| root.need_expiry = try reader.asBool(value, "require_exp");
    if (settings.get("optional")) |value| root.optional = try reader.asBool(value, "optional");
    if (settings.get("forward")) |value| root.forward = try reader.asBool(value, "forward");
    if (settings.get("header")) |value| root.header = try reader.asHeaderName(value, "header");
    if (settings.get("cookie")) |value| {
        if (settings.get("header") != null) return reader.refuse("cookie: header is there too, the token can only be in one", .{});
        root.cookie = try reader.asHeaderName(value, "cookie");
        root.cookie = value.string; // cookies are case-sensitive
    }
    if (settings.get("realm")) |value| {
        root.realm = try reader.asHeaderValue(value, "realm");
        if (root.realm.len > 200 or std.mem.findAny(u8, root.realm, "\"\\") != null)
            return reader.refuse("realm: at most 200 bytes, without quotes and backslashes", .{});
    }
    if (settings.get("claim_headers")) |value| try readClaims(reader, value, &root);
    return root;
}

fn readKeys(reader: config.Reader, value: config.Value) config.Error![]keys.Key {
    const items = try reader.asList(value, "keys");
    const list = try reader.arena.alloc(keys.Key, items.len);
    for (list, items, 0..) |*key, item, index| {
        const jwk = try reader.asObject(item, "keys[]");
        key.* = keys.read(reader.arena, jwk, true) catch |reason| switch (reason) {
            error.OutOfMemory => return error.OutOfMemory,
            error.Unsupported => return reader.refuse(
                "keys[{d}]: not for signatures with HS256, RS256 or ES256 (kty oct, RSA, EC with crv P-256; use sig; alg)",
                .{index},
            ),
            error.Malformed => return reader.refuse(
                "keys[{d}]: not a JWK (k of 32 bytes or more; n of 2048 to 4096 bits and e; x and y; in base64url)",
                .{index},
            ),
        };
        for (list[0..index]) |*other| {
            if (other.algorithm() != key.algorithm()) continue;
            const same = if (key.id) |id| other.id != null and std.mem.eql(u8, id, other.id.?) else other.id == null;
            if (same) return reader.refuse("keys[{d}]: has the kid of another key for the same algorithm", .{index});
        }
    }
    return list;
}

fn readRemote(reader: config.Reader, value: config.Value) config.Error!Remote {
    const fields = try reader.asObject(value, "jwks");
    try reader.onlyKeys(fields, "jwks", &.{ "cluster", "host", "path", "timeout", "cache", "keep" });
    const cluster = try reader.asString(fields.get("cluster") orelse return reader.refuse("jwks.cluster: is missing", .{}), "jwks.cluster");
    const path = try reader.asHeaderValue(fields.get("path") orelse return reader.refuse("jwks.path: is missing", .{}), "jwks.path");
    if (!std.mem.startsWith(u8, path, "/") or std.mem.findScalar(u8, path, ' ') != null)
        return reader.refuse("jwks.path: must begin with / and have no spaces", .{});
    const timeout = if (fields.get("timeout")) |one| try reader.asInteger(one, "jwks.timeout", 1, 30_000) else 5_000;
    const cache = if (fields.get("cache")) |one| try reader.asInteger(one, "jwks.cache", 1, 86_400) else 600;
    const keep = if (fields.get("keep")) |one| try reader.asInteger(one, "jwks.keep", 0, 604_800) else 3_600;
    return .{
        .cluster = cluster,
        .host = if (fields.get("host")) |one| try reader.asHeaderValue(one, "jwks.host") else cluster,
        .path = path,
        .timeout = @intCast(timeout),
        .cache = @as(u64, @intCast(cache)) * second,
        .keep = @as(u64, @intCast(keep)) * second,
    };
}

fn readClaims(reader: config.Reader, value: config.Value, root: *Root) config.Error!void {
    const fields = try reader.asObject(value, "claim_headers");
    const claims = try reader.arena.alloc(std.meta.Elem(@FieldType(Root, "claims")), fields.count());
    const names = try reader.arena.alloc([]const u8, fields.count());
    for (claims, names, fields.keys(), fields.values()) |*claim, *name, key, path| {
        name.* = try reader.asHeaderName(.{ .string = key }, "claim_headers");
        claim.* = .{ .header = name.*, .path = try reader.asString(path, "claim_headers[]") };
        for ([_][]const u8{ "host", "connection", "content-length", "transfer-encoding", "authorization" }) |taken| {
            if (std.mem.eql(u8, name.*, taken)) return reader.refuse("claim_headers: '{s}' is not one to write a claim to", .{key});
        }
    }
    root.claims = claims;
    root.claim_headers = names;
}
