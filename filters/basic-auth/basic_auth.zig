//! basic-auth: asks for a user name and a password (RFC 7617), and tells the upstream in `x-auth-user` who it was.
//!
//! Passwords are stored as PBKDF2-HMAC-SHA-256 with a salt. A few hundred iterations are what fits into a callback's
//! fuel, so a password that was checked once is recognised by a single hash afterwards (`User.recognise`); a wrong
//! password costs the full price every time, whether or not the user exists.

const std = @import("std");
const pw = @import("proxy_wasm");
const config = @import("config");

pub const panic = pw.panic;

const Sha256 = std.crypto.hash.sha2.Sha256;
const Digest = [Sha256.digest_length]u8;

const user_header = "x-auth-user";
// Many servers hand headers to applications with '-' and '_' made equal, so all spellings have to go.
const user_header_spellings = [_][]const u8{ "x_auth_user", "x-auth_user", "x_auth-user" };

/// More would not fit into the default fuel of a callback; `max_iterations` raises it together with `fuel`.
const default_max_iterations = 300;
const longest_credentials = 1024;

const User = struct {
    salt: []const u8,
    iterations: u32,
    hash: Digest,
    /// A salted hash of the password that was right last time.
    recognised: ?Digest = null,

    fn accepts(self: *User, password: []const u8) bool {
        const quick = self.quickHash(password);
        if (self.recognised) |known| {
            if (std.crypto.timing_safe.eql(Digest, known, quick)) return true;
        }
        if (!std.crypto.timing_safe.eql(Digest, self.hash, derive(password, self.salt, self.iterations))) return false;
        self.recognised = quick;
        return true;
    }

    fn quickHash(self: *const User, password: []const u8) Digest {
        var hasher = Sha256.init(.{});
        hasher.update(&self.hash); // salted by itself: not a secret from here, different for each user
        hasher.update(password);
        return hasher.finalResult();
    }
};

const Root = struct {
    challenge: []const u8,
    forward_credentials: bool,
    users: std.array_hash_map.String(User),
    /// Checked in place of a user that does not exist, so that the answer takes as long.
    nobody: User,

    fn check(self: *Root, credentials: Credentials) ?[]const u8 {
        if (self.users.getEntry(credentials.user)) |entry| {
            return if (entry.value_ptr.accepts(credentials.password)) entry.key_ptr.* else null;
        }
        _ = self.nobody.accepts(credentials.password);
        return null;
    }

    pub const read = readConfiguration;
};

var roots: config.Roots(Root, "basic-auth") = .{};

// ---- callbacks ----

export fn proxy_on_context_create(context: u32, parent: u32) void {
    roots.create(context, parent);
}

export fn proxy_on_configure(root: u32, _: usize) bool {
    return roots.configure(root);
}

export fn proxy_on_request_headers(context: u32, _: u32, _: bool) pw.Action {
    pw.request_headers.remove(user_header);
    for (user_header_spellings) |name| pw.request_headers.remove(name);

    const root = roots.of(context) orelse {
        pw.sendLocalResponse(500, "basic_auth_not_configured", "", &.{.{ "cache-control", "no-store" }});
        return .pause;
    };
    const header = pw.request_headers.get("authorization") orelse return deny(root, "basic_auth_no_credentials");
    defer pw.free(header);
    var buffer: [longest_credentials]u8 = undefined;
    defer std.crypto.secureZero(u8, &buffer);
    const credentials = readCredentials(header, &buffer) orelse return deny(root, "basic_auth_malformed_credentials");
    const user = root.check(credentials) orelse return deny(root, "basic_auth_wrong_credentials");

    pw.request_headers.set(user_header, user);
    if (!root.forward_credentials) pw.request_headers.remove("authorization");
    return .proceed;
}

export fn proxy_on_delete(context: u32) void {
    roots.delete(context);
}

fn deny(root: *const Root, details: []const u8) pw.Action {
    pw.sendLocalResponse(401, details, "401 Unauthorized\n", &.{.{ "www-authenticate", root.challenge }});
    return .pause;
}

// ---- credentials ----

const Credentials = struct { user: []const u8, password: []const u8 };

/// `Basic <base64 of user:password>`; null for everything else. `buffer` holds what is returned.
fn readCredentials(header: []const u8, buffer: *[longest_credentials]u8) ?Credentials {
    const scheme = "basic ";
    if (header.len <= scheme.len or !std.ascii.eqlIgnoreCase(header[0..scheme.len], scheme)) return null;
    const encoded = std.mem.trim(u8, header[scheme.len..], " ");
    const decoder = std.base64.standard.Decoder;
    const length = decoder.calcSizeForSlice(encoded) catch return null;
    if (length > buffer.len) return null;
    const plain = buffer[0..length];
    decoder.decode(plain, encoded) catch return null;
    const colon = std.mem.findScalar(u8, plain, ':') orelse return null;
    return .{ .user = plain[0..colon], .password = plain[colon + 1 ..] };
}

/// PBKDF2 (RFC 8018 section 5.2) with HMAC-SHA-256 and one block of output. The two halves of HMAC's key are hashed
/// once instead of in each iteration, which halves the price.
fn derive(password: []const u8, salt: []const u8, iterations: u32) Digest {
    var key: [Sha256.block_length]u8 = @splat(0);
    if (password.len > key.len) {
        Sha256.hash(password, key[0..Sha256.digest_length], .{});
    } else {
        @memcpy(key[0..password.len], password);
    }
    var inner = Sha256.init(.{});
    var outer = Sha256.init(.{});
    var padded = key;
    for (&padded) |*byte| byte.* ^= 0x36;
    inner.update(&padded);
    padded = key;
    for (&padded) |*byte| byte.* ^= 0x5c;
    outer.update(&padded);

    var hasher = inner;
    hasher.update(salt);
    hasher.update(&.{ 0, 0, 0, 1 }); // the number of the block
    var block = finish(outer, hasher.finalResult());
    var result: @Vector(Sha256.digest_length, u8) = block;
    for (1..iterations) |_| {
        hasher = inner;
        hasher.update(&block);
        block = finish(outer, hasher.finalResult());
        result ^= block;
    }
    return result;
}

fn finish(outer: Sha256, digest: Digest) Digest {
    var hasher = outer;
    hasher.update(&digest);
    return hasher.finalResult();
}

// ---- reading the configuration ----

fn readConfiguration(reader: config.Reader) config.Error!Root {
    const settings = try reader.object();
    try reader.onlyKeys(settings, "the configuration", &.{ "realm", "users", "forward_credentials", "max_iterations" });

    const realm = if (settings.get("realm")) |value| try reader.asString(value, "realm") else "restricted";
    if (config.hasControls(realm)) return reader.refuse("realm: no control characters", .{});
    const forward = if (settings.get("forward_credentials")) |value|
        try reader.asBool(value, "forward_credentials")
    else
        false;
    const max_iterations: i64 = if (settings.get("max_iterations")) |value|
        if (value == .integer and value.integer >= 1 and value.integer <= std.math.maxInt(u32))
            value.integer
        else
            return reader.refuse("max_iterations: must be a whole number from 1 on", .{})
    else
        default_max_iterations;

    const users = try reader.asObject(settings.get("users") orelse return reader.refuse("users: is missing", .{}), "users");
    if (users.count() == 0) return reader.refuse("users: is empty, nobody could get in", .{});
    var root: Root = undefined;
    root.users = .empty;
    root.nobody = .{ .salt = "", .iterations = 1, .hash = @splat(0) };
    for (users.keys(), users.values()) |name, value| {
        if (name.len == 0 or config.hasControls(name) or std.mem.findScalar(u8, name, ':') != null)
            return reader.refuse("users: '{s}' cannot be a user name (RFC 7617: no colon, no control characters)", .{name});
        const user = try readUser(reader, name, value, max_iterations);
        if (user.iterations >= root.nobody.iterations) {
            root.nobody.iterations = user.iterations;
            root.nobody.salt = user.salt;
        }
        try root.users.put(reader.arena, name, user);
    }
    root.challenge = try challenge(reader.arena, realm);
    root.forward_credentials = forward;
    return root;
}

/// `pbkdf2-sha256:ITERATIONS:SALT:HASH`, salt and hash in hex.
fn readUser(reader: config.Reader, name: []const u8, value: config.Value, max_iterations: i64) config.Error!User {
    const malformed = "users.{s}: must be 'pbkdf2-sha256:ITERATIONS:SALT:HASH' (the README has the command that makes it)";
    if (value != .string) return reader.refuse(malformed, .{name});
    var fields = std.mem.splitScalar(u8, value.string, ':');
    if (!std.mem.eql(u8, fields.first(), "pbkdf2-sha256")) return reader.refuse(malformed, .{name});
    const iterations = std.fmt.parseInt(u32, fields.next() orelse "", 10) catch return reader.refuse(malformed, .{name});
    const salt_hex = fields.next() orelse return reader.refuse(malformed, .{name});
    const hash_hex = fields.next() orelse return reader.refuse(malformed, .{name});
    if (fields.next() != null or hash_hex.len != 2 * Sha256.digest_length or salt_hex.len < 16)
        return reader.refuse(malformed, .{name});
    if (iterations < 1 or iterations > max_iterations)
        return reader.refuse("users.{s}: {d} iterations, allowed are 1 to {d} (max_iterations, to be raised with fuel)", .{ name, iterations, max_iterations });

    var user = User{ .salt = undefined, .iterations = iterations, .hash = undefined };
    const salt = try reader.arena.alloc(u8, salt_hex.len / 2);
    user.salt = std.fmt.hexToBytes(salt, salt_hex) catch return reader.refuse(malformed, .{name});
    _ = std.fmt.hexToBytes(&user.hash, hash_hex) catch return reader.refuse(malformed, .{name});
    return user;
}

/// RFC 7617 section 2: the realm as a quoted string.
fn challenge(memory: std.mem.Allocator, realm: []const u8) error{OutOfMemory}![]const u8 {
    var text: std.Io.Writer.Allocating = .init(memory);
    const writer = &text.writer;
    writer.writeAll("Basic realm=\"") catch return error.OutOfMemory;
    for (realm) |byte| {
        if (byte == '"' or byte == '\\') writer.writeByte('\\') catch return error.OutOfMemory;
        writer.writeByte(byte) catch return error.OutOfMemory;
    }
    writer.writeAll("\", charset=\"UTF-8\"") catch return error.OutOfMemory;
    return text.written();
}
