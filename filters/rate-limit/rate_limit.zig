//! rate-limit: so many requests in such a time, by client address, header, path or for all, over all workers.
//!
//! A token bucket, kept as the one number that says it all (GCRA): the time at which the bucket will be full again.
//! A request moves that time on by `per / rate`; it is refused if that went more than `burst` requests beyond now. The
//! numbers lie in the host's shared data, in a table of fixed size (`table.zig`), changed by compare-and-swap.

const std = @import("std");
const pw = @import("proxy_wasm");
const config = @import("config");
const address = @import("address");
const Table = @import("table.zig").Table;

pub const panic = pw.panic;

const most_limits = 8;
const second = std.time.ns_per_s;

const By = union(enum) { all, client, path, header: []const u8 };

const Limit = struct {
    name: []const u8,
    by: By,
    paths: []const []const u8,
    methods: []const []const u8,
    per: u64, // ns
    rate: u64,
    burst: u64,
    /// What makes its buckets different from those of other limits: of the same name, key, rate and so on are the same.
    identity: u64,

    /// Nanoseconds for one request.
    fn cost(self: *const Limit) u64 {
        return std.math.divCeil(u64, self.per, self.rate) catch unreachable;
    }

    fn depth(self: *const Limit) u64 {
        return self.cost() * self.burst;
    }
};

/// How one request stands with one limit.
const Standing = struct {
    burst: u64,
    remaining: u64,
    /// Nanoseconds: until the bucket is full, and until the next request would pass (0: now).
    reset: u64,
    wait: u64,
};

const Root = struct {
    limits: []const Limit,
    proxies: address.Ranges,
    ipv6_prefix: u8,
    status: u32,
    body: []const u8,
    headers: bool,
    open: bool,
    table: Table,

    pub const read = readConfiguration;
};

var roots: config.Roots(Root, "rate-limit") = .{};
/// What the answer's headers say: of requests that a limit was about, if `headers` is on.
var standings: pw.ContextMap(Standing) = .{};

// ---- callbacks ----

export fn proxy_on_context_create(context: u32, parent: u32) void {
    roots.create(context, parent);
}

export fn proxy_on_configure(root: u32, _: usize) bool {
    return roots.configure(root);
}

export fn proxy_on_request_headers(context: u32, _: u32, _: bool) pw.Action {
    const root = roots.of(context) orelse {
        pw.sendLocalResponse(500, "rate_limit_not_configured", "", &.{});
        return .pause;
    };
    const standing = take(root) catch |reason| {
        const text = if (reason == error.NoRoom) "shared data is full (limits.shared_data)" else "too many at once";
        pw.log(.err, "rate-limit: {s}; the request is {s}", .{ text, if (root.open) "let through" else "refused" });
        if (root.open) return .proceed;
        pw.sendLocalResponse(503, "rate_limit_unavailable", "503 Service Unavailable\n", &.{});
        return .pause;
    } orelse return .proceed;
    if (root.headers) standings.put(context, standing);
    if (standing.wait == 0) return .proceed;

    var buffer: [20]u8 = undefined;
    pw.sendLocalResponse(root.status, "rate_limited", root.body, &.{.{ "retry-after", inSeconds(&buffer, standing.wait) }});
    return .pause;
}

export fn proxy_on_response_headers(context: u32, _: u32, _: bool) pw.Action {
    const standing = standings.get(context) orelse return .proceed;
    var buffer: [64]u8 = undefined;
    const headers = pw.response_headers;
    headers.set("ratelimit-limit", number(&buffer, standing.burst));
    headers.set("ratelimit-remaining", number(&buffer, standing.remaining));
    headers.set("ratelimit-reset", inSeconds(buffer[0..20], standing.reset));
    _ = standings.remove(context);
    return .proceed;
}

export fn proxy_on_delete(context: u32) void {
    _ = standings.remove(context);
    roots.delete(context);
}

fn number(buffer: []u8, value: u64) []const u8 {
    return std.fmt.bufPrint(buffer, "{d}", .{value}) catch unreachable;
}

/// Whole seconds, rounded up: who comes back then must not be too early.
fn inSeconds(buffer: *[20]u8, nanoseconds: u64) []const u8 {
    return number(buffer, std.math.divCeil(u64, nanoseconds, second) catch unreachable);
}

// ---- deciding ----

const Taken = struct { limit: *const Limit, bucket: Table.Bucket };

/// Takes the request out of the bucket of every limit that is about it, or out of none. Answers how it stands with the
/// tightest one (the one that refuses, or with the least remaining); null if no limit is about it.
fn take(root: *Root) Table.Error!?Standing {
    const now = pw.now();
    var taken: [most_limits]Taken = undefined;
    var count: usize = 0;
    var tightest: ?Standing = null;
    for (root.limits) |*limit| {
        const tag = keyOf(root, limit) orelse continue;
        const bucket = root.table.bucket(tag);
        const standing = try spend(root, limit, bucket, now);
        if (standing.wait > 0) {
            // Rarely more than one limit refuses or is contended, so what was taken is given back instead of locked.
            for (taken[0..count]) |one| try root.table.give(one.bucket, one.limit.cost());
            return standing;
        }
        taken[count] = .{ .limit = limit, .bucket = bucket };
        count += 1;
        if (tightest == null or standing.remaining < tightest.?.remaining) tightest = standing;
    }
    return tightest;
}

fn spend(root: *Root, limit: *const Limit, bucket: Table.Bucket, now: u64) Table.Error!Standing {
    const result = try root.table.take(bucket, now, limit.cost(), limit.depth());
    const ahead = result.full_at -| now;
    return .{
        .burst = limit.burst,
        .remaining = (limit.depth() - @min(ahead, limit.depth())) / limit.cost(),
        .reset = ahead,
        .wait = if (result.taken) 0 else ahead + limit.cost() - limit.depth(),
    };
}

/// The 64-bit name of the bucket that this request is counted in; null if the limit is not about the request.
fn keyOf(root: *const Root, limit: *const Limit) ?u64 {
    if (limit.methods.len > 0 and !isMethod(limit.methods)) return null;
    var hasher = root.table.hasher(limit.identity);
    if (limit.by == .path or limit.paths.len > 0) {
        const whole = pw.request_headers.get(":path") orelse return null;
        defer pw.free(whole);
        const path = whole[0 .. std.mem.findAny(u8, whole, "?#") orelse whole.len];
        if (!hasPrefix(limit.paths, path)) return null;
        if (limit.by == .path) hasher.update(path);
    }
    switch (limit.by) {
        .all, .path => {},
        .client => if (address.client(root.proxies)) |found| {
            const bits = if (found.isV4()) 128 else root.ipv6_prefix;
            hasher.update(&found.masked(bits).bytes);
        }, // those who cannot be told apart share a bucket
        .header => |name| if (pw.request_headers.get(name)) |value| {
            defer pw.free(value);
            hasher.update("=");
            hasher.update(value);
        }, // so do requests without the header
    }
    return hasher.finalInt();
}

fn isMethod(methods: []const []const u8) bool {
    const method = pw.request_headers.get(":method") orelse return false;
    defer pw.free(method);
    for (methods) |one| {
        if (std.mem.eql(u8, one, method)) return true;
    }
    return false;
}

fn hasPrefix(prefixes: []const []const u8, path: []const u8) bool {
    if (prefixes.len == 0) return true;
    for (prefixes) |prefix| {
        if (std.mem.startsWith(u8, path, prefix)) return true;
    }
    return false;
}

// ---- reading the configuration ----

fn readConfiguration(reader: config.Reader) config.Error!Root {
    const settings = try reader.object();
    const known = .{ "limits", "trusted_proxies", "ipv6_prefix", "status", "body", "headers", "on_error", "clients" };
    try reader.onlyKeys(settings, "the configuration", &known);
    var root = Root{
        .limits = &.{},
        .proxies = .{},
        .ipv6_prefix = 64,
        .status = 429,
        .body = "429 Too Many Requests\n",
        .headers = true,
        .open = true,
        .table = undefined,
    };
    if (settings.get("trusted_proxies")) |value| root.proxies = try address.Ranges.read(reader, value, "trusted_proxies");
    if (settings.get("ipv6_prefix")) |value| root.ipv6_prefix = @intCast(try reader.asInteger(value, "ipv6_prefix", 16, 128));
    if (settings.get("status")) |value| root.status = @intCast(try reader.asInteger(value, "status", 400, 599));
    if (settings.get("body")) |value| root.body = try reader.asString(value, "body");
    if (settings.get("headers")) |value| root.headers = try reader.asBool(value, "headers");
    if (settings.get("on_error")) |value| root.open = try reader.asEnum(enum { open, closed }, value, "on_error") == .open;
    const clients = if (settings.get("clients")) |value| try reader.asInteger(value, "clients", 64, 65536) else 8192;

    const items = try reader.asList(settings.get("limits") orelse return reader.refuse("limits: is missing", .{}), "limits");
    if (items.len == 0 or items.len > most_limits)
        return reader.refuse("limits: must be 1 to {d} of them", .{most_limits});
    const limits = try reader.arena.alloc(Limit, items.len);
    for (limits, items) |*limit, item| limit.* = try readLimit(reader, item);
    root.limits = limits;
    root.table = Table.open(@intCast(clients)) catch return reader.refuse("shared data is full (limits.shared_data)", .{});
    return root;
}

fn readLimit(reader: config.Reader, item: config.Value) config.Error!Limit {
    const fields = try reader.asObject(item, "limits[]");
    try reader.onlyKeys(fields, "limits[]", &.{ "name", "by", "paths", "methods", "rate", "per", "burst" });
    var limit: Limit = undefined;
    limit.name = if (fields.get("name")) |value| try reader.asString(value, "limits[].name") else "";
    limit.by = try readBy(reader, fields.get("by") orelse return reader.refuse("limits[].by: is missing", .{}));
    limit.paths = if (fields.get("paths")) |value| try reader.asStrings(value, "limits[].paths", "limits[].paths[]") else &.{};
    for (limit.paths) |path| {
        if (!std.mem.startsWith(u8, path, "/")) return reader.refuse("limits[].paths[]: '{s}' does not begin with /", .{path});
    }
    limit.methods = if (fields.get("methods")) |value| try reader.asStrings(value, "limits[].methods", "limits[].methods[]") else &.{};
    const rate = fields.get("rate") orelse return reader.refuse("limits[].rate: is missing", .{});
    limit.rate = @intCast(try reader.asInteger(rate, "limits[].rate", 1, 1_000_000));
    const per = fields.get("per") orelse return reader.refuse("limits[].per: is missing", .{});
    const seconds: u64 = switch (try reader.asEnum(enum { second, minute, hour, day }, per, "limits[].per")) {
        .second => 1,
        .minute => 60,
        .hour => 3600,
        .day => 86400,
    };
    limit.per = seconds * second;
    limit.burst = if (fields.get("burst")) |value| @intCast(try reader.asInteger(value, "limits[].burst", 1, 1_000_000)) else limit.rate;
    // 100 days in ns, a thousandth of what fits the arithmetic.
    if (limit.depth() > 100 * 86400 * second)
        return reader.refuse("limits[].burst: would take more than 100 days to fill at this rate", .{});

    var hasher = std.hash.Fnv1a_64.init();
    hasher.update(limit.name);
    hasher.update(&.{ 0, @intFromEnum(limit.by) });
    if (limit.by == .header) hasher.update(limit.by.header);
    for (limit.paths) |path| hashText(&hasher, path);
    hasher.update("\x01");
    for (limit.methods) |method| hashText(&hasher, method);
    for ([_]u64{ limit.rate, limit.per, limit.burst }) |value| hasher.update(std.mem.asBytes(&value));
    limit.identity = hasher.final();
    return limit;
}

fn hashText(hasher: *std.hash.Fnv1a_64, text: []const u8) void {
    hasher.update(text);
    hasher.update("\x00");
}

fn readBy(reader: config.Reader, value: config.Value) config.Error!By {
    const text = try reader.asString(value, "limits[].by");
    if (std.mem.eql(u8, text, "all")) return .all;
    if (std.mem.eql(u8, text, "client")) return .client;
    if (std.mem.eql(u8, text, "path")) return .path;
    const prefix = "header ";
    if (!std.mem.startsWith(u8, text, prefix))
        return reader.refuse("limits[].by: must be all, client, path or 'header NAME'", .{});
    return .{ .header = try reader.asHeaderName(.{ .string = text[prefix.len..] }, "limits[].by") };
}
