//! Reading a filter's JSON configuration, with a reason for every refusal.

const std = @import("std");
const pw = @import("proxy_wasm");

pub const Value = std.json.Value;
pub const Error = error{ Refused, OutOfMemory };

/// One reading. Everything it returns lives in `arena`, as long as the caller keeps that.
pub const Reader = struct {
    arena: std.mem.Allocator,
    filter: []const u8,

    /// Logs why, and fails: `return reader.refuse(...)`.
    pub fn refuse(self: Reader, comptime format: []const u8, arguments: anytype) error{Refused} {
        pw.log(.err, "{s}: configuration refused: " ++ format, .{self.filter} ++ arguments);
        return error.Refused;
    }

    /// The plugin configuration as a JSON object.
    pub fn object(self: Reader) Error!std.json.ObjectMap {
        const source = pw.Buffer.plugin_configuration.read(0, std.math.maxInt(u32));
        defer pw.free(source);
        if (source.len == 0) return self.refuse("there is none", .{});
        var scanner = std.json.Scanner.initCompleteInput(self.arena, source);
        var position: std.json.Diagnostics = .{};
        scanner.enableDiagnostics(&position);
        const value = std.json.parseFromTokenSourceLeaky(Value, self.arena, &scanner, .{}) catch |reason| {
            if (reason == error.OutOfMemory) return error.OutOfMemory;
            return self.refuse("not JSON: {s} at byte {d}", .{ @errorName(reason), position.getByteOffset() });
        };
        return self.asObject(value, "the configuration");
    }

    pub fn asObject(self: Reader, value: Value, path: []const u8) error{Refused}!std.json.ObjectMap {
        return if (value == .object) value.object else self.refuse("{s}: must be a mapping", .{path});
    }

    pub fn asString(self: Reader, value: Value, path: []const u8) error{Refused}![]const u8 {
        return if (value == .string) value.string else self.refuse("{s}: must be a string", .{path});
    }

    pub fn asBool(self: Reader, value: Value, path: []const u8) error{Refused}!bool {
        return if (value == .bool) value.bool else self.refuse("{s}: must be true or false", .{path});
    }

    pub fn asList(self: Reader, value: Value, path: []const u8) error{Refused}![]const Value {
        return if (value == .array) value.array.items else self.refuse("{s}: must be a list", .{path});
    }

    /// Refuses every key that is not in `known`.
    pub fn onlyKeys(self: Reader, map: std.json.ObjectMap, path: []const u8, comptime known: []const []const u8) error{Refused}!void {
        outer: for (map.keys()) |key| {
            inline for (known) |name| {
                if (std.mem.eql(u8, key, name)) continue :outer;
            }
            return self.refuse("{s}: unknown key '{s}'", .{ path, key });
        }
    }
};

/// Control characters, which have no place in a header value (RFC 9110 section 5.5).
pub fn hasControls(text: []const u8) bool {
    for (text) |byte| {
        if (byte < 0x20 or byte == 0x7f) return true;
    }
    return false;
}
