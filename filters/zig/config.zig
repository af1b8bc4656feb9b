//! Reading a filter's JSON configuration, with a reason for every refusal.

const std = @import("std");
const pw = @import("proxy_wasm");

pub const Roots = @import("roots.zig").Roots;

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

    /// A whole number within limits, both included.
    pub fn asInteger(self: Reader, value: Value, path: []const u8, least: i64, most: i64) error{Refused}!i64 {
        if (value == .integer and value.integer >= least and value.integer <= most) return value.integer;
        return self.refuse("{s}: must be a whole number from {d} to {d}", .{ path, least, most });
    }

    /// One of the names of an enum.
    pub fn asEnum(self: Reader, comptime T: type, value: Value, path: []const u8) error{Refused}!T {
        if (value == .string) if (std.meta.stringToEnum(T, value.string)) |found| return found;
        const names = comptime names: {
            var list: []const u8 = "";
            for (std.meta.fieldNames(T), 0..) |name, index| list = list ++ (if (index == 0) "" else ", ") ++ name;
            break :names list;
        };
        return self.refuse("{s}: must be one of " ++ names, .{path});
    }

    /// A text that can stand in a header: no control characters.
    pub fn asHeaderValue(self: Reader, value: Value, path: []const u8) error{Refused}![]const u8 {
        const text = try self.asString(value, path);
        return if (hasControls(text)) self.refuse("{s}: no control characters", .{path}) else text;
    }

    /// The name of an ordinary header, in lower case (RFC 9110 section 5.6.2).
    pub fn asHeaderName(self: Reader, value: Value, path: []const u8) Error![]const u8 {
        const text = try self.asString(value, path);
        for (text) |byte| {
            if (std.ascii.isAlphanumeric(byte) or std.mem.findScalar(u8, "!#$%&'*+-.^_`|~", byte) != null) continue;
            return self.refuse("{s}: '{s}' is not the name of a header", .{ path, text });
        }
        if (text.len == 0) return self.refuse("{s}: is empty, not the name of a header", .{path});
        return std.ascii.allocLowerString(self.arena, text);
    }

    /// A list of texts; `each` is the path to name one of them by.
    pub fn asStrings(self: Reader, value: Value, path: []const u8, each: []const u8) Error![]const []const u8 {
        const items = try self.asList(value, path);
        const texts = try self.arena.alloc([]const u8, items.len);
        for (texts, items) |*text, item| text.* = try self.asString(item, each);
        return texts;
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
