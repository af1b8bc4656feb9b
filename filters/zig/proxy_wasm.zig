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

const Status = enum(u32) { ok = 0, not_found = 1, bad_argument = 2, _ };

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

    /// The value of the first field of that name; null if there is none. The caller gives it to `free`.
    pub fn get(map: HeaderMap, name: []const u8) ?[]u8 {
        var data: ?[*]u8 = null;
        var length: usize = 0;
        if (host.proxy_get_header_map_value(@intFromEnum(map), name.ptr, name.len, &data, &length) != .ok) return null;
        return received(data, length);
    }

    /// Appends a field and leaves those of the same name alone.
    pub fn add(map: HeaderMap, name: []const u8, value: []const u8) void {
        _ = host.proxy_add_header_map_value(@intFromEnum(map), name.ptr, name.len, value.ptr, value.len);
    }

    /// Makes this the only field of that name.
    pub fn set(map: HeaderMap, name: []const u8, value: []const u8) void {
        _ = host.proxy_replace_header_map_value(@intFromEnum(map), name.ptr, name.len, value.ptr, value.len);
    }

    /// Removes every field of that name, if any.
    pub fn remove(map: HeaderMap, name: []const u8) void {
        _ = host.proxy_remove_header_map_value(@intFromEnum(map), name.ptr, name.len);
    }
};

pub const request_headers = HeaderMap.request;
pub const response_headers = HeaderMap.response;

/// Bytes that the host holds: the piece of a body that a body callback is about, or a configuration.
pub const Buffer = enum(u32) {
    request_body = 0,
    response_body = 1,
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

/// Answers the request from here; the request goes no further. `details` is a slug for the access log, without spaces.
/// One header besides those the host writes: more would need a block to be built, and no filter here has more.
pub fn sendLocalResponse(status: u32, details: []const u8, body: []const u8, name: []const u8, value: []const u8) void {
    // u32 count; u32 name length, u32 value length; name, NUL, value, NUL (proxy-wasm "serialized map").
    const size = 12 + name.len + 1 + value.len + 1;
    const block = allocator.alloc(u8, size) catch outOfMemory();
    defer allocator.free(block);
    var writer = std.Io.Writer.fixed(block);
    writer.writeInt(u32, 1, .little) catch unreachable;
    writer.writeInt(u32, @intCast(name.len), .little) catch unreachable;
    writer.writeInt(u32, @intCast(value.len), .little) catch unreachable;
    writer.print("{s}\x00{s}\x00", .{ name, value }) catch unreachable;
    const no_grpc_status = -1;
    _ = host.proxy_send_local_response(status, details.ptr, details.len, body.ptr, body.len, block.ptr, size, no_grpc_status);
}

/// Which side of the exchange `closeStream` resets.
pub const StreamType = enum(u32) { request = 0, response = 1 };

/// Resets the stream: the client sees a broken message, not a short one.
pub fn closeStream(stream: StreamType) void {
    _ = host.proxy_close_stream(@intFromEnum(stream));
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
