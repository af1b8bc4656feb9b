//! proxy-wasm ABI 0.2.1 for Zig: what a filter needs to talk to its host, and nothing else.
//!
//! A filter is one .zig file. It imports this module, exports the callbacks it wants under their ABI names, and names
//! the panic handler:
//!
//!     const pw = @import("proxy_wasm");
//!     pub const panic = pw.panic;
//!
//!     export fn proxy_on_request_headers(context: u32, count: u32, end_of_stream: bool) pw.Action {
//!         pw.request_headers.set("x-hello", "world");
//!         return .proceed;
//!     }
//!
//! A callback that is not exported counts as "continue" (and `proxy_on_vm_start`, `proxy_on_configure` as "accepted").
//!
//! Memory: what the host hands out belongs to the filter, which gives it back with `free`. The allocator keeps free
//! lists per size class, so a filter that frees what it gets stays flat.
//! An allocation that fails is a panic: one log line and a trap, and the host's failure policy decides.

const std = @import("std");

pub const allocator = std.heap.wasm_allocator;

/// What a callback answers. `proceed` is the ABI's "continue", which is a keyword in Zig.
pub const Action = enum(u32) { proceed = 0, pause = 1 };

pub const LogLevel = enum(u32) { trace, debug, info, warn, err, critical };

const Status = enum(u32) { ok = 0, not_found = 1, bad_argument = 2, cas_mismatch = 8, _ };

const host = struct {
    extern "env" fn proxy_log(level: LogLevel, message: [*]const u8, length: usize) Status;
    extern "env" fn proxy_get_buffer_bytes(buffer: u32, start: usize, max: usize, data: *?[*]u8, length: *usize) Status;
    extern "env" fn proxy_set_buffer_bytes(buffer: u32, start: usize, size: usize, data: [*]const u8, length: usize) Status;
    extern "env" fn proxy_get_header_map_value(map: u32, key: [*]const u8, key_length: usize, value: *?[*]u8, length: *usize) Status;
    extern "env" fn proxy_add_header_map_value(map: u32, key: [*]const u8, key_length: usize, value: [*]const u8, length: usize) Status;
    extern "env" fn proxy_replace_header_map_value(map: u32, key: [*]const u8, key_length: usize, value: [*]const u8, length: usize) Status;
    extern "env" fn proxy_remove_header_map_value(map: u32, key: [*]const u8, key_length: usize) Status;
    extern "env" fn proxy_send_local_response(
        status: u32,
        details: [*]const u8,
        details_length: usize,
        body: [*]const u8,
        body_length: usize,
        headers: [*]const u8,
        headers_length: usize,
        grpc_status: i32,
    ) Status;
    extern "env" fn proxy_close_stream(stream: u32) Status;
    extern "env" fn proxy_continue_stream(stream: u32) Status;
    extern "env" fn proxy_set_effective_context(context: u32) Status;
    extern "env" fn proxy_set_tick_period_milliseconds(period: u32) Status;
    extern "env" fn proxy_get_header_map_pairs(map: u32, data: *?[*]u8, length: *usize) Status;
    extern "env" fn proxy_get_property(path: [*]const u8, path_length: usize, value: *?[*]u8, length: *usize) Status;
    extern "env" fn proxy_get_current_time_nanoseconds(time: *u64) Status;
    extern "env" fn proxy_get_shared_data(key: [*]const u8, key_length: usize, value: *?[*]u8, length: *usize, cas: *u32) Status;
    extern "env" fn proxy_set_shared_data(key: [*]const u8, key_length: usize, value: [*]const u8, length: usize, cas: u32) Status;
    extern "env" fn proxy_define_metric(kind: u32, name: [*]const u8, length: usize, id: *u32) Status;
    extern "env" fn proxy_increment_metric(id: u32, offset: i64) Status;
    extern "env" fn proxy_http_call(
        upstream: [*]const u8,
        upstream_length: usize,
        headers: [*]const u8,
        headers_length: usize,
        body: [*]const u8,
        body_length: usize,
        trailers: [*]const u8,
        trailers_length: usize,
        timeout_milliseconds: u32,
        token: *u32,
    ) Status;
};

/// Marks the module as written for ABI 0.2.1. Hosts look for the name and never call it.
export fn proxy_abi_version_0_2_1() void {}

/// Gives the host room for something it hands to the filter. 0 tells it that there is none.
export fn proxy_on_memory_allocate(size: usize) ?[*]u8 {
    // The raw functions, because the safe build modes fill what is allocated and freed with a pattern: for the pieces
    // of a body that would cost twice what reading them does.
    return allocator.rawAlloc(size, .@"1", @returnAddress());
}

/// Gives back what the host handed out.
pub fn free(bytes: []u8) void {
    if (bytes.len > 0) allocator.rawFree(bytes, .@"1", @returnAddress());
}

/// A panic is one log line and a trap.
pub const panic = std.debug.FullPanic(struct {
    fn report(message: []const u8, _: ?usize) noreturn {
        _ = host.proxy_log(.critical, message.ptr, message.len);
        @trap();
    }
}.report);

/// For `catch pw.outOfMemory()`.
pub fn outOfMemory() noreturn {
    @panic("out of memory");
}

/// Writes one line to the host's log; what is longer than 512 bytes is cut.
pub fn log(level: LogLevel, comptime format: []const u8, arguments: anytype) void {
    var line: [512]u8 = undefined;
    var writer = std.Io.Writer.fixed(&line);
    writer.print(format, arguments) catch {};
    const message = writer.buffered();
    _ = host.proxy_log(level, message.ptr, message.len);
}

/// The headers of a request or a response. A map can be read and edited in its own callback only: in Envoy the request
/// headers are out of reach once the response has begun. Pseudo-headers (`:path`, `:status`, ...) are ordinary keys.
pub const HeaderMap = enum(u32) {
    request = 0,
    response = 2,
    http_call_response = 6,

    /// The value of the first field of that name; null if there is none. The caller gives it to `free`.
    pub fn get(map: HeaderMap, name: []const u8) ?[]u8 {
        var data: ?[*]u8 = null;
        var length: usize = 0;
        if (host.proxy_get_header_map_value(@intFromEnum(map), name.ptr, name.len, &data, &length) != .ok) return null;
        return received(data, length);
    }

    /// A snapshot of every field in order, repeated names as separate entries. The caller gives it to `deinit`.
    pub fn all(map: HeaderMap) Fields {
        var data: ?[*]u8 = null;
        var length: usize = 0;
        if (host.proxy_get_header_map_pairs(@intFromEnum(map), &data, &length) != .ok) return .{ .block = &.{} };
        return .{ .block = received(data, length) };
    }

    /// Appends a field and leaves those of the same name alone.
    pub fn add(map: HeaderMap, name: []const u8, value: []const u8) void {
        _ = host.proxy_add_header_map_value(@intFromEnum(map), name.ptr, name.len, value.ptr, value.len);
    }

    /// Makes this the only field of that name.
    pub fn set(map: HeaderMap, name: []const u8, value: []const u8) void {
        _ = host.proxy_replace_header_map_value(@intFromEnum(map), name.ptr, name.len, value.ptr, value.len);
    }

    /// Removes the fields of these names (in lower case) in every spelling: many servers hand headers to applications
    /// with '-' and '_' made equal, so that a client could write `x_user` where a filter writes `x-user`.
    pub fn removeSpellings(map: HeaderMap, names: []const []const u8) void {
        if (names.len == 0) return;
        var fields = map.all();
        defer fields.deinit();
        while (fields.next()) |field| {
            for (names) |name| {
                if (isSpelling(field[0], name)) map.remove(field[0]);
            }
        }
    }

    fn isSpelling(text: []const u8, name: []const u8) bool {
        if (text.len != name.len) return false;
        for (text, name) |a, b| {
            if (a != b and !((a == '_' or a == '-') and (b == '_' or b == '-'))) return false;
        }
        return true;
    }

    /// Removes every field of that name, if any.
    pub fn remove(map: HeaderMap, name: []const u8) void {
        _ = host.proxy_remove_header_map_value(@intFromEnum(map), name.ptr, name.len);
    }
};

pub const request_headers = HeaderMap.request;
pub const response_headers = HeaderMap.response;

/// One field. A name is in lower case.
pub const Header = struct { []const u8, []const u8 };

/// What `HeaderMap.all` gives: `while (fields.next()) |field|`.
pub const Fields = struct {
    block: []u8,
    index: usize = 0,
    position: usize = 0,

    /// The next field, its texts inside the block; null after the last.
    pub fn next(self: *Fields) ?Header {
        if (self.block.len < 4) return null;
        const count = std.mem.readInt(u32, self.block[0..4], .little);
        if (self.index >= count) return null;
        if (self.index == 0) self.position = 4 + 8 * count;
        const sizes = self.block[4 + 8 * self.index ..][0..8];
        const name = self.block[self.position..][0..std.mem.readInt(u32, sizes[0..4], .little)];
        const value = self.block[self.position + name.len + 1 ..][0..std.mem.readInt(u32, sizes[4..8], .little)];
        self.position += name.len + value.len + 2;
        self.index += 1;
        return .{ name, value };
    }

    pub fn deinit(self: Fields) void {
        free(self.block);
    }
};

/// Fields as the ABI's serialized map: u32 count; of each u32 name length, u32 value length; of each name, NUL, value,
/// NUL. The caller gives it to `allocator.free`.
fn serialized(headers: []const Header) []u8 {
    var size: usize = 4;
    for (headers) |header| size += 8 + header[0].len + 1 + header[1].len + 1;
    const block = allocator.alloc(u8, size) catch outOfMemory();
    var writer = std.Io.Writer.fixed(block);
    writer.writeInt(u32, @intCast(headers.len), .little) catch unreachable;
    for (headers) |header| {
        writer.writeInt(u32, @intCast(header[0].len), .little) catch unreachable;
        writer.writeInt(u32, @intCast(header[1].len), .little) catch unreachable;
    }
    for (headers) |header| writer.print("{s}\x00{s}\x00", .{ header[0], header[1] }) catch unreachable;
    return block;
}

/// Bytes that the host holds: the piece of a body that a body callback is about, or a configuration.
pub const Buffer = enum(u32) {
    request_body = 0,
    response_body = 1,
    http_call_response_body = 4,
    plugin_configuration = 7,

    /// Up to `max` bytes from `start` on; fewer, or none, where the buffer ends. The caller gives them to `free`.
    pub fn read(buffer: Buffer, start: usize, max: usize) []u8 {
        var data: ?[*]u8 = null;
        var length: usize = 0;
        if (host.proxy_get_buffer_bytes(@intFromEnum(buffer), start, max, &data, &length) != .ok) return &.{};
        return received(data, length);
    }

    /// Puts these bytes in the place of all there are.
    pub fn replace(buffer: Buffer, bytes: []const u8) void {
        _ = host.proxy_set_buffer_bytes(@intFromEnum(buffer), 0, std.math.maxInt(u32), bytes.ptr, bytes.len);
    }
};

fn received(data: ?[*]u8, length: usize) []u8 {
    return if (data) |bytes| bytes[0..length] else &.{};
}

/// Answers the request from here; the request goes no further, and the callback answers `pause`. `details` is a slug for
/// the access log, without spaces. The answer passes the response callbacks of this filter and of those before it.
pub fn sendLocalResponse(status: u32, details: []const u8, body: []const u8, headers: []const Header) void {
    const block = serialized(headers);
    defer allocator.free(block);
    const no_grpc_status = -1;
    _ = host.proxy_send_local_response(status, details.ptr, details.len, body.ptr, body.len, block.ptr, block.len, no_grpc_status);
}

/// Which side of the exchange `closeStream` resets.
pub const StreamType = enum(u32) { request = 0, response = 1 };

/// Resets the stream: the client sees a broken message, not a short one.
pub fn closeStream(stream: StreamType) void {
    _ = host.proxy_close_stream(@intFromEnum(stream));
}

/// Goes on with a stream whose callback answered `pause`. To be followed by `return`: the host runs on inside it.
pub fn continueStream(stream: StreamType) void {
    _ = host.proxy_continue_stream(@intFromEnum(stream));
}

/// From here to the end of the callback, host calls are about this context; false if it is gone.
pub fn setEffectiveContext(context: u32) bool {
    return host.proxy_set_effective_context(context) == .ok;
}

/// `proxy_on_tick` is called on the root context that this is called on, every so many milliseconds; 0: no more.
pub fn setTickPeriod(milliseconds: u32) void {
    _ = host.proxy_set_tick_period_milliseconds(milliseconds);
}

/// A property (attribute) by its path, the parts with NUL between them; null if there is none. The caller frees it.
pub fn property(path: []const u8) ?[]u8 {
    var data: ?[*]u8 = null;
    var length: usize = 0;
    if (host.proxy_get_property(path.ptr, path.len, &data, &length) != .ok) return null;
    return received(data, length);
}

/// Nanoseconds since 1970.
pub fn now() u64 {
    var time: u64 = 0;
    _ = host.proxy_get_current_time_nanoseconds(&time);
    return time;
}

/// A number that only grows, shown by the host with its other metrics.
pub const Counter = struct {
    id: ?u32 = null,

    /// The counter of that name, made if it is not there. If the host has no room for it, it counts nothing.
    pub fn define(name: []const u8) Counter {
        var id: u32 = 0;
        const kind = 0;
        return .{ .id = if (host.proxy_define_metric(kind, name.ptr, name.len, &id) == .ok) id else null };
    }

    pub fn add(counter: Counter, count: u32) void {
        if (count > 0) if (counter.id) |id| {
            _ = host.proxy_increment_metric(id, count);
        };
    }
};

/// Values that all VMs with the same `vm_id` share, in all workers.
pub const shared_data = struct {
    pub const Item = struct { value: []u8, cas: u32 };
    pub const Result = enum { stored, changed, failed };

    /// What is there; null if nothing is. The caller gives `value` to `free`.
    pub fn get(key: []const u8) ?Item {
        var data: ?[*]u8 = null;
        var length: usize = 0;
        var cas: u32 = 0;
        if (host.proxy_get_shared_data(key.ptr, key.len, &data, &length, &cas) != .ok) return null;
        return .{ .value = received(data, length), .cas = cas };
    }

    /// Stores a value if the key still has this `cas`, or does not exist; else it is `changed`. `failed`: the host has
    /// no room. To create a key only where there is none, use `absent`.
    pub fn set(key: []const u8, value: []const u8, cas: u32) Result {
        return switch (host.proxy_set_shared_data(key.ptr, key.len, value.ptr, value.len, cas)) {
            .ok => .stored,
            .cas_mismatch => .changed,
            else => .failed,
        };
    }

    /// A number that no key has: hosts count from 1.
    pub const absent = std.math.maxInt(u32);
};

/// Sends a request to a cluster (`upstream` is its name). The answer comes to `proxy_on_http_call_response`, with this
/// token; 0 headers there mean that there was none. Null if the host does not even try.
pub fn httpCall(upstream: []const u8, headers: []const Header, body: []const u8, timeout_milliseconds: u32) ?u32 {
    const block = serialized(headers);
    defer allocator.free(block);
    const trailers = [4]u8{ 0, 0, 0, 0 };
    var token: u32 = 0;
    const status = host.proxy_http_call(
        upstream.ptr,
        upstream.len,
        block.ptr,
        block.len,
        body.ptr,
        body.len,
        &trailers,
        trailers.len,
        timeout_milliseconds,
        &token,
    );
    return if (status == .ok) token else null;
}

/// What a filter keeps per context id. Ids of roots and streams share one numbering and are not reused while alive.
pub fn ContextMap(comptime T: type) type {
    return struct {
        const Self = @This();
        // The array-backed map removes without tombstones, so it does not grow under a steady load.
        entries: std.array_hash_map.Auto(u32, T) = .empty,

        pub fn put(self: *Self, context: u32, value: T) void {
            self.entries.put(allocator, context, value) catch outOfMemory();
        }

        pub fn get(self: *Self, context: u32) ?*T {
            return self.entries.getPtr(context);
        }

        pub fn remove(self: *Self, context: u32) bool {
            return self.entries.swapRemove(context);
        }
    };
}
