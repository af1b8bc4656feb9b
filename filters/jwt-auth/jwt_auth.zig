//! jwt-auth: admits requests with a JSON Web Token (RFC 7519) that is signed by a known key, and tells the service what
//! it claims. HS256, RS256 and ES256; keys from the configuration or from a JWKS document of another cluster.

const std = @import("std");
const pw = @import("proxy_wasm");
const config = @import("config");
const keys = @import("keys.zig");
const Remote = @import("remote.zig").Remote;

pub const panic = pw.panic;

const longest_token = 8192;
const remembered = 256;
const Sha256 = std.crypto.hash.sha2.Sha256;
const Digest = [Sha256.digest_length]u8;
const second = std.time.ns_per_s;

const Claim = struct { header: []const u8, path: []const u8 };

pub const Root = struct {
    keys: []keys.Key,
    remote: ?Remote,
    issuers: []const []const u8,
    audiences: []const []const u8,
    leeway: i64,
    need_expiry: bool,
    optional: bool,
    forward: bool,
    cookie: ?[]const u8,
    header: []const u8,
    claims: []const Claim,
    claim_headers: []const []const u8,
    realm: []const u8,
    /// Digests of tokens whose signatures were right: a client sends the same one again and again. What they claim is
    /// still looked at each time.
    verified: *[remembered]Digest,

    pub const read = @import("settings.zig").read;

    pub fn deinit(self: *Root) void {
        if (self.remote) |*remote| remote.deinit();
    }

    /// Forgets them: the keys are others now.
    pub fn forgetVerified(self: *Root) void {
        self.verified.* = @splat(@splat(0));
    }
};

pub var roots: config.Roots(Root, "jwt-auth") = .{};

// ---- callbacks ----

export fn proxy_on_context_create(context: u32, parent: u32) void {
    roots.create(context, parent);
}

export fn proxy_on_configure(root: u32, _: usize) bool {
    return roots.configure(root);
}

export fn proxy_on_request_headers(context: u32, _: u32, _: bool) pw.Action {
    const root = roots.of(context) orelse {
        pw.sendLocalResponse(500, "jwt_auth_not_configured", "", &.{});
        return .pause;
    };
    pw.request_headers.removeSpellings(root.claim_headers);
    return if (decide(context, root, true) == .passed) .proceed else .pause;
}

export fn proxy_on_http_call_response(id: u32, token: u32, _: u32, body_size: usize, _: u32) void {
    const root = roots.get(id) orelse return;
    const remote = if (root.remote) |*one| one else return;
    if (!remote.receive(token, body_size)) return;
    root.forgetVerified();
    // One stream at a time, as each may cost a signature: a tick's fuel is for one.
    if (remote.waiting.items.len > 0) pw.setTickPeriod(1);
}

export fn proxy_on_tick(id: u32) void {
    const root = roots.get(id) orelse return;
    const remote = if (root.remote) |*one| one else return;
    if (remote.waiting.items.len <= 1) pw.setTickPeriod(0);
    if (remote.waiting.items.len == 0) return;
    const stream = remote.waiting.orderedRemove(0);
    if (pw.setEffectiveContext(stream) and decide(stream, root, false) == .passed) pw.continueStream(.request);
}

export fn proxy_on_delete(context: u32) void {
    if (roots.of(context)) |root| {
        if (root.remote) |*remote| remote.leave(context);
    }
    roots.delete(context);
}

// ---- deciding ----

const Decision = enum { passed, answered, waits };

const Refusal = enum {
    missing,
    malformed,
    unknown_key,
    wrong_signature,
    expired,
    not_yet_valid,
    wrong_issuer,
    wrong_audience,
    keys_unavailable,
};

/// Whether the request of this stream goes on; if not, it has been answered, or waits for keys.
fn decide(stream: u32, root: *Root, may_wait: bool) Decision {
    // All that is made for one request lies here, and goes at the end.
    var arena = std.heap.ArenaAllocator.init(pw.allocator);
    defer arena.deinit();
    const memory = arena.allocator();

    const text = tokenOf(memory, root) orelse {
        if (!root.optional) return refuse(root, .missing);
        return .passed;
    };
    const token = Token.parse(memory, text.token) orelse return refuse(root, .malformed);
    const key = find(root, token) orelse {
        const remote = if (root.remote) |*one| one else return refuse(root, .unknown_key);
        if (may_wait and remote.fetch(roots.idOf(stream).?, .wanted)) {
            remote.wait(stream);
            return .waits;
        }
        return refuse(root, if (remote.usable().len == 0) .keys_unavailable else .unknown_key);
    };
    if (!isRight(root, key, token)) return refuse(root, .wrong_signature);
    if (check(root, token.payload)) |refusal| return refuse(root, refusal);
    for (root.claims) |claim| {
        const value = findClaim(token.payload, claim.path) orelse continue;
        const rendered = render(memory, value) orelse continue;
        if (config.hasControls(rendered)) return refuse(root, .malformed);
        pw.request_headers.set(claim.header, rendered);
    }
    if (root.cookie == null) {
        // The one that was looked at, if the client sent several: the service could look at another.
        if (root.forward) pw.request_headers.set(root.header, text.field) else pw.request_headers.remove(root.header);
    }
    // Last, because from here on host calls are about the root context. Until new keys are there the old ones are used.
    if (root.remote) |*remote| {
        if (may_wait) _ = remote.fetch(roots.idOf(stream).?, .old);
    }
    return .passed;
}

fn refuse(root: *const Root, why: Refusal) Decision {
    if (why == .keys_unavailable) {
        pw.sendLocalResponse(503, "jwt_auth_keys_unavailable", "503 Service Unavailable\n", &.{.{ "cache-control", "no-store" }});
        return .answered;
    }
    // RFC 6750 section 3: no error where there was no token.
    var buffer: [512]u8 = undefined;
    var writer = std.Io.Writer.fixed(&buffer);
    writer.print("Bearer realm=\"{s}\"", .{root.realm}) catch unreachable;
    if (why != .missing) {
        writer.writeAll(", error=\"invalid_token\", error_description=\"") catch unreachable;
        for (@tagName(why)) |byte| writer.writeByte(if (byte == '_') ' ' else byte) catch unreachable;
        writer.writeAll("\"") catch unreachable;
    }
    var details: [64]u8 = undefined;
    const slug = std.fmt.bufPrint(&details, "jwt_auth_{s}", .{@tagName(why)}) catch unreachable;
    pw.sendLocalResponse(401, slug, "401 Unauthorized\n", &.{.{ "www-authenticate", writer.buffered() }});
    return .answered;
}

const Found = struct { token: []const u8, field: []const u8 = "" };

/// The token as it stands in the request, and the whole field; null if there is none.
fn tokenOf(memory: std.mem.Allocator, root: *const Root) ?Found {
    if (root.cookie) |name| return if (cookieOf(memory, name)) |token| .{ .token = token } else null;
    const value = pw.request_headers.get(root.header) orelse return null;
    defer pw.free(value);
    const field = memory.dupe(u8, value) catch pw.outOfMemory();
    var text: []const u8 = field;
    if (std.mem.eql(u8, root.header, "authorization")) {
        const scheme = "bearer ";
        if (text.len < scheme.len or !std.ascii.eqlIgnoreCase(text[0..scheme.len], scheme)) return null;
        text = std.mem.trim(u8, text[scheme.len..], " ");
    }
    return .{ .token = text, .field = field };
}

/// RFC 6265 section 5.4; several cookie fields are possible.
fn cookieOf(memory: std.mem.Allocator, name: []const u8) ?[]const u8 {
    var fields = pw.request_headers.all();
    defer fields.deinit();
    while (fields.next()) |field| {
        if (!std.mem.eql(u8, field[0], "cookie")) continue;
        var pairs = std.mem.splitScalar(u8, field[1], ';');
        while (pairs.next()) |pair| {
            const equals = std.mem.findScalar(u8, pair, '=') orelse continue;
            if (!std.mem.eql(u8, std.mem.trim(u8, pair[0..equals], " "), name)) continue;
            return memory.dupe(u8, std.mem.trim(u8, pair[equals + 1 ..], " \"")) catch pw.outOfMemory();
        }
    }
    return null;
}

const Token = struct {
    algorithm: keys.Algorithm,
    key_id: ?[]const u8,
    payload: std.json.ObjectMap,
    message: []const u8,
    signature: []const u8,

    /// RFC 7515 section 5.2; null for what is not a token, or of a kind that is not known here ("none" among them).
    fn parse(memory: std.mem.Allocator, text: []const u8) ?Token {
        if (text.len > longest_token) return null;
        const first = std.mem.findScalar(u8, text, '.') orelse return null;
        const last = std.mem.findScalarLast(u8, text, '.').?;
        if (first == last or std.mem.findScalarPos(u8, text, first + 1, '.').? != last) return null;
        const header = parseObject(memory, text[0..first]) orelse return null;
        const name = header.get("alg") orelse return null;
        if (name != .string or header.get("crit") != null) return null;
        if (header.get("kid")) |id| if (id != .string) return null;
        return .{
            .algorithm = std.meta.stringToEnum(keys.Algorithm, name.string) orelse return null,
            .key_id = if (header.get("kid")) |id| id.string else null,
            .payload = parseObject(memory, text[first + 1 .. last]) orelse return null,
            .message = text[0..last],
            .signature = keys.decode(memory, text[last + 1 ..]) orelse return null,
        };
    }
};

fn parseObject(memory: std.mem.Allocator, encoded: []const u8) ?std.json.ObjectMap {
    const source = keys.decode(memory, encoded) orelse return null;
    const value = std.json.parseFromSliceLeaky(std.json.Value, memory, source, .{}) catch return null;
    return if (value == .object) value.object else null;
}

/// The key of that id and algorithm; for a token without an id the only one of its algorithm.
fn find(root: *Root, token: Token) ?*keys.Key {
    var found: ?*keys.Key = null;
    const remote: []keys.Key = if (root.remote) |*one| one.usable() else &.{};
    for ([_][]keys.Key{ root.keys, remote }) |list| {
        for (list) |*key| {
            if (key.algorithm() != token.algorithm) continue;
            if (token.key_id) |wanted| {
                if (std.mem.eql(u8, wanted, key.id orelse continue)) return key;
            } else {
                if (found != null) return null;
                found = key;
            }
        }
    }
    return found;
}

fn isRight(root: *Root, key: *keys.Key, token: Token) bool {
    // An HMAC costs as little as the digest would.
    if (token.algorithm == .HS256) return key.verify(token.message, token.signature);
    var hasher = Sha256.init(.{});
    hasher.update(token.message);
    hasher.update(".");
    hasher.update(token.signature);
    const digest = hasher.finalResult();
    const place = &root.verified[digest[0]];
    if (std.mem.eql(u8, place, &digest)) return true;
    if (!key.verify(token.message, token.signature)) return false;
    place.* = digest;
    return true;
}

/// RFC 7519 section 4.1; null if all is well.
fn check(root: *const Root, payload: std.json.ObjectMap) ?Refusal {
    const now: f64 = @floatFromInt(pw.now() / second);
    const leeway: f64 = @floatFromInt(root.leeway);
    if (payload.get("exp")) |value| {
        const time = number(value) orelse return .malformed;
        if (now >= time + leeway) return .expired;
    } else if (root.need_expiry) return .expired;
    if (payload.get("nbf")) |value| {
        const time = number(value) orelse return .malformed;
        if (now < time - leeway) return .not_yet_valid;
    }
    if (root.issuers.len > 0) {
        const issuer = payload.get("iss") orelse return .wrong_issuer;
        if (issuer != .string or !contains(root.issuers, issuer.string)) return .wrong_issuer;
    }
    if (root.audiences.len > 0 and !isFor(root, payload.get("aud") orelse return .wrong_audience)) return .wrong_audience;
    return null;
}

fn number(value: std.json.Value) ?f64 {
    return switch (value) {
        .integer => |whole| @floatFromInt(whole),
        .float => |float| float,
        else => null,
    };
}

fn isFor(root: *const Root, audience: std.json.Value) bool {
    switch (audience) {
        .string => |one| return contains(root.audiences, one),
        .array => |list| for (list.items) |one| {
            if (one == .string and contains(root.audiences, one.string)) return true;
        },
        else => {},
    }
    return false;
}

fn contains(list: []const []const u8, text: []const u8) bool {
    for (list) |one| {
        if (std.mem.eql(u8, one, text)) return true;
    }
    return false;
}

/// A claim by its name, or by a path with dots into nested objects.
fn findClaim(payload: std.json.ObjectMap, path: []const u8) ?std.json.Value {
    if (payload.get(path)) |value| return value;
    const dot = std.mem.findScalar(u8, path, '.') orelse return null;
    const inner = payload.get(path[0..dot]) orelse return null;
    return if (inner == .object) findClaim(inner.object, path[dot + 1 ..]) else null;
}

/// Text, numbers and truth values as they are, lists of those with commas; null for everything else.
fn render(memory: std.mem.Allocator, value: std.json.Value) ?[]const u8 {
    return switch (value) {
        .string => |text| text,
        .number_string => |text| text,
        .integer => |whole| std.fmt.allocPrint(memory, "{d}", .{whole}) catch pw.outOfMemory(),
        .float => |float| std.fmt.allocPrint(memory, "{d}", .{float}) catch pw.outOfMemory(),
        .bool => |truth| if (truth) "true" else "false",
        .array => |list| {
            var parts: std.ArrayList([]const u8) = .empty;
            for (list.items) |item| {
                // A comma in an item would make two of it.
                if (item == .array or (item == .string and std.mem.findScalar(u8, item.string, ',') != null)) return null;
                parts.append(memory, render(memory, item) orelse return null) catch pw.outOfMemory();
            }
            return std.mem.join(memory, ",", parts.items) catch pw.outOfMemory();
        },
        else => null,
    };
}
