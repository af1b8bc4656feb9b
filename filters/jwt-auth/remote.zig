//! Keys of an issuer, fetched from its JWKS document (RFC 7517 section 5) when they are first needed, when they are old,
//! and when a token names one that is not among them.

const std = @import("std");
const pw = @import("proxy_wasm");
const config = @import("config");
const keys = @import("keys.zig");

const most_keys = 32;
const largest_document = 256 * 1024;
const second = std.time.ns_per_s;
/// Between two fetches: tokens with made-up key ids must not become requests to the issuer.
const pause_after_success = 30 * second;
const pause_after_failure = 1 * second;

pub const Remote = struct {
    cluster: []const u8,
    host: []const u8,
    path: []const u8,
    timeout: u32, // milliseconds
    cache: u64, // ns
    keep: u64, // ns

    keys: []keys.Key = &.{},
    memory: ?std.heap.ArenaAllocator = null,
    loaded_at: ?u64 = null,
    tried_at: u64 = 0,
    call: ?u32 = null,
    waiting: std.ArrayList(u32) = .empty,

    pub const Reason = enum { old, wanted };

    /// Begins a fetch if there is a reason, and none is on its way. Whether one is on its way now.
    pub fn fetch(self: *Remote, root: u32, reason: Reason) bool {
        if (self.call != null) return true;
        const now = pw.now();
        if (reason == .old) {
            const loaded_at = self.loaded_at orelse return false;
            if (now < loaded_at +| self.cache) return false;
        }
        const failed = self.loaded_at == null or self.tried_at > self.loaded_at.?;
        const pause: u64 = if (failed) pause_after_failure else pause_after_success;
        if (self.tried_at > 0 and now < self.tried_at +| pause) return false;
        self.tried_at = now;
        // On behalf of the root context: the stream may be gone before the answer is there.
        if (!pw.setEffectiveContext(root)) return false;
        self.call = pw.httpCall(self.cluster, &.{
            .{ ":method", "GET" },
            .{ ":path", self.path },
            .{ ":authority", self.host },
            .{ ":scheme", "https" },
            .{ "accept", "application/json" },
        }, "", self.timeout);
        if (self.call == null) pw.log(.err, "jwt-auth: cluster '{s}' cannot be called", .{self.cluster});
        return self.call != null;
    }

    /// The answer to a call; false if it was not this one's.
    pub fn receive(self: *Remote, token: u32, size: usize) bool {
        if (self.call != token) return false;
        self.call = null;
        const status = pw.HeaderMap.http_call_response.get(":status");
        defer if (status) |text| pw.free(text);
        if (status == null or !std.mem.eql(u8, status.?, "200")) {
            pw.log(.warn, "jwt-auth: no keys from '{s}': status {s}", .{ self.cluster, status orelse "none" });
            return true;
        }
        if (size > largest_document) {
            pw.log(.warn, "jwt-auth: no keys from '{s}': {d} bytes", .{ self.cluster, size });
            return true;
        }
        const body = pw.Buffer.http_call_response_body.read(0, size);
        defer pw.free(body);
        var memory = std.heap.ArenaAllocator.init(pw.allocator);
        self.keys = parse(memory.allocator(), body) catch |reason| {
            memory.deinit();
            if (reason == error.OutOfMemory) pw.outOfMemory();
            pw.log(.warn, "jwt-auth: no keys from '{s}': not a JWKS document with a key for RS256 or ES256", .{self.cluster});
            return true;
        };
        if (self.memory) |*old| old.deinit();
        self.memory = memory;
        self.loaded_at = pw.now();
        self.tried_at = self.loaded_at.?;
        return true;
    }

    fn parse(memory: std.mem.Allocator, body: []const u8) error{ Malformed, OutOfMemory }![]keys.Key {
        // What is parsed points into it.
        const source = try memory.dupe(u8, body);
        const document = std.json.parseFromSliceLeaky(std.json.Value, memory, source, .{}) catch return error.Malformed;
        if (document != .object) return error.Malformed;
        const list = document.object.get("keys") orelse return error.Malformed;
        if (list != .array) return error.Malformed;
        var found: std.ArrayList(keys.Key) = .empty;
        for (list.array.items) |item| {
            if (item != .object or found.items.len == most_keys) continue;
            // A key of another kind, or a broken one, is no reason to do without the others.
            const key = keys.read(memory, item.object, false) catch |reason| {
                if (reason == error.OutOfMemory) return error.OutOfMemory;
                continue;
            };
            try found.append(memory, key);
        }
        return if (found.items.len == 0) error.Malformed else found.items;
    }

    /// The keys there are; none if they are so old that they no longer count.
    pub fn usable(self: *const Remote) []keys.Key {
        const loaded_at = self.loaded_at orelse return &.{};
        return if (pw.now() > loaded_at +| self.cache +| self.keep) &.{} else self.keys;
    }

    pub fn deinit(self: *Remote) void {
        if (self.memory) |*memory| memory.deinit();
        self.waiting.deinit(pw.allocator);
    }

    pub fn wait(self: *Remote, stream: u32) void {
        self.waiting.append(pw.allocator, stream) catch pw.outOfMemory();
    }

    pub fn leave(self: *Remote, stream: u32) void {
        const index = std.mem.findScalar(u32, self.waiting.items, stream) orelse return;
        _ = self.waiting.orderedRemove(index);
    }
};
