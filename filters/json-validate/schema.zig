//! A subset of JSON Schema 2020-12, compiled once for a configuration and applied to each document.

const std = @import("std");
const config = @import("config");

const Value = std.json.Value;

pub const Kinds = std.EnumSet(Kind);
pub const Kind = enum { null, boolean, integer, number, string, array, object };

const Property = struct { name: []const u8, schema: *const Schema };

pub const Format = enum { uuid, date, @"date-time", email, ipv4, ipv6, uri };

pub const Schema = struct {
    /// `false` as a schema: nothing is valid.
    never: bool = false,
    kinds: ?Kinds = null,
    one_of_values: ?[]const Value = null,
    properties: []const Property = &.{},
    required: []const []const u8 = &.{},
    additional: ?*const Schema = null,
    names: ?*const Schema = null,
    least_properties: u64 = 0,
    most_properties: u64 = std.math.maxInt(u64),
    prefix: []const *const Schema = &.{},
    items: ?*const Schema = null,
    least_items: u64 = 0,
    most_items: u64 = std.math.maxInt(u64),
    unique: bool = false,
    least_length: u64 = 0,
    most_length: u64 = std.math.maxInt(u64),
    format: ?Format = null,
    minimum: ?f64 = null,
    maximum: ?f64 = null,
    above: ?f64 = null,
    below: ?f64 = null,
    multiple: ?i64 = null,
    all: []const *const Schema = &.{},
    any: []const *const Schema = &.{},
    one: []const *const Schema = &.{},
    not: ?*const Schema = null,
    ref: ?*const Schema = null,
};

const annotations = [_][]const u8{
    "$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
};

const nesting_limit = 32;
const most_unique_items = 64;

/// Compiles schemas. `definitions` are those of `$defs` at the top.
pub const Compiler = struct {
    reader: config.Reader,
    definitions: std.StringArrayHashMapUnmanaged(*Schema) = .empty,

    pub fn compile(self: *Compiler, value: Value, path: []const u8) config.Error!*const Schema {
        if (value == .object) if (value.object.get("$defs")) |defs| {
            const map = try self.reader.asObject(defs, try self.join(path, "$defs"));
            // First all of them empty, so that they can refer to each other.
            for (map.keys()) |name| {
                const schema = try self.reader.arena.create(Schema);
                schema.* = .{};
                try self.definitions.put(self.reader.arena, name, schema);
            }
            for (map.keys(), map.values()) |name, item| {
                const at = try self.join(try self.join(path, "$defs"), name);
                try self.fill(self.definitions.get(name).?, item, at, 1);
            }
        };
        const schema = try self.reader.arena.create(Schema);
        schema.* = .{};
        try self.fill(schema, value, path, 0);
        return schema;
    }

    fn join(self: *Compiler, path: []const u8, key: []const u8) error{OutOfMemory}![]const u8 {
        return std.fmt.allocPrint(self.reader.arena, "{s}.{s}", .{ path, key });
    }

    fn child(self: *Compiler, value: Value, path: []const u8, depth: usize) config.Error!*const Schema {
        const schema = try self.reader.arena.create(Schema);
        schema.* = .{};
        try self.fill(schema, value, path, depth + 1);
        return schema;
    }

    fn children(self: *Compiler, value: Value, path: []const u8, depth: usize) config.Error![]const *const Schema {
        const items = try self.reader.asList(value, path);
        if (items.len == 0) return self.reader.refuse("{s}: is empty", .{path});
        const schemas = try self.reader.arena.alloc(*const Schema, items.len);
        for (schemas, items, 0..) |*schema, item, index| {
            schema.* = try self.child(item, try std.fmt.allocPrint(self.reader.arena, "{s}[{d}]", .{ path, index }), depth);
        }
        return schemas;
    }

    fn fill(self: *Compiler, schema: *Schema, value: Value, path: []const u8, depth: usize) config.Error!void {
        const reader = self.reader;
        if (depth > nesting_limit) return reader.refuse("{s}: nested deeper than {d}", .{ path, nesting_limit });
        if (value == .bool) {
            schema.never = !value.bool;
            return;
        }
        const map = try reader.asObject(value, path);
        keys: for (map.keys(), map.values()) |key, item| {
            const at = try self.join(path, key);
            for (annotations) |annotation| if (std.mem.eql(u8, key, annotation)) continue :keys;
            const keyword = std.meta.stringToEnum(Keyword, key) orelse
                return reader.refuse("{s}: '{s}' is not supported; the README lists what is", .{ path, key });
            switch (keyword) {
                .type => schema.kinds = try self.kinds(item, at),
                .@"const" => {
                    const values = try reader.arena.alloc(Value, 1);
                    values[0] = item;
                    schema.one_of_values = values;
                },
                .@"enum" => schema.one_of_values = try reader.asList(item, at),
                .properties => {
                    const members = try reader.asObject(item, at);
                    const properties = try reader.arena.alloc(Property, members.count());
                    for (properties, members.keys(), members.values()) |*property, name, one| {
                        property.* = .{ .name = name, .schema = try self.child(one, try self.join(at, name), depth) };
                    }
                    schema.properties = properties;
                },
                .required => schema.required = try reader.asStrings(item, at, at),
                .additionalProperties => schema.additional = try self.child(item, at, depth),
                .propertyNames => schema.names = try self.child(item, at, depth),
                .minProperties => schema.least_properties = try self.count(item, at),
                .maxProperties => schema.most_properties = try self.count(item, at),
                .prefixItems => schema.prefix = try self.children(item, at, depth),
                .items => schema.items = try self.child(item, at, depth),
                .minItems => schema.least_items = try self.count(item, at),
                .maxItems => schema.most_items = try self.count(item, at),
                .uniqueItems => schema.unique = try reader.asBool(item, at),
                .minLength => schema.least_length = try self.count(item, at),
                .maxLength => schema.most_length = try self.count(item, at),
                .format => schema.format = try reader.asEnum(Format, item, at),
                .minimum => schema.minimum = try self.number(item, at),
                .maximum => schema.maximum = try self.number(item, at),
                .exclusiveMinimum => schema.above = try self.number(item, at),
                .exclusiveMaximum => schema.below = try self.number(item, at),
                .multipleOf => schema.multiple = try reader.asInteger(item, at, 1, std.math.maxInt(i32)),
                .allOf => schema.all = try self.children(item, at, depth),
                .anyOf => schema.any = try self.children(item, at, depth),
                .oneOf => schema.one = try self.children(item, at, depth),
                .not => schema.not = try self.child(item, at, depth),
                .@"$ref" => {
                    const name = try reader.asString(item, at);
                    const prefix = "#/$defs/";
                    const known = if (std.mem.startsWith(u8, name, prefix)) self.definitions.get(name[prefix.len..]) else null;
                    schema.ref = known orelse return reader.refuse("{s}: '{s}' is not #/$defs/ and one of their names", .{ at, name });
                },
                .@"$defs" => if (depth > 0) return reader.refuse("{s}: only at the top", .{at}),
            }
        }
        if (schema.unique and schema.most_items > most_unique_items)
            return reader.refuse("{s}.uniqueItems: needs maxItems of at most {d}, because every pair is compared", .{ path, most_unique_items });
    }

    const Keyword = enum {
        type, @"const", @"enum", properties, required, additionalProperties, propertyNames, minProperties, maxProperties,
        prefixItems, items, minItems, maxItems, uniqueItems, minLength, maxLength, format, minimum, maximum, exclusiveMinimum,
        exclusiveMaximum, multipleOf, allOf, anyOf, oneOf, not, @"$ref", @"$defs",
    };

    fn kinds(self: *Compiler, value: Value, path: []const u8) config.Error!Kinds {
        var found: Kinds = .empty;
        if (value == .array and value.array.items.len > 0) {
            for (value.array.items) |item| found.insert(try self.reader.asEnum(Kind, item, path));
        } else {
            found.insert(try self.reader.asEnum(Kind, value, path));
        }
        return found;
    }

    fn count(self: *Compiler, value: Value, path: []const u8) config.Error!u64 {
        return @intCast(try self.reader.asInteger(value, path, 0, std.math.maxInt(i32)));
    }

    fn number(self: *Compiler, value: Value, path: []const u8) config.Error!f64 {
        return asNumber(value) orelse self.reader.refuse("{s}: must be a number", .{path});
    }
};

fn asNumber(value: Value) ?f64 {
    return switch (value) {
        .integer => |whole| @floatFromInt(whole),
        .float => |float| float,
        .number_string => |text| std.fmt.parseFloat(f64, text) catch null,
        else => null,
    };
}

/// The first thing that is wrong with a document. `pointer` (RFC 6901) and `problem` live as long as `arena`.
pub const Finding = struct { pointer: []const u8, problem: []const u8 };

pub const Validator = struct {
    arena: std.mem.Allocator,
    /// Keys and indices from the top to where it is.
    path: [128]Step = undefined,
    depth: usize = 0,
    finding: ?Finding = null,
    /// References that are followed without going deeper into the document would never end.
    references: usize = 0,

    const Step = union(enum) { key: []const u8, index: usize };

    /// Whether the value is valid; if not, `finding` says why, unless it was within anyOf, oneOf or not.
    pub fn valid(self: *Validator, schema: *const Schema, value: *const Value) error{ OutOfMemory, TooDeep }!bool {
        if (schema.never) return self.wrong("is not allowed here", .{});
        if (schema.kinds) |kinds| if (!matchesKind(kinds, value.*)) return self.wrong("has the wrong type, expected {f}", .{Names{ .kinds = kinds }});
        if (schema.one_of_values) |values| {
            for (values) |one| {
                if (equal(one, value.*)) break;
            } else return self.wrong("is none of the allowed values", .{});
        }
        switch (value.*) {
            .string => |text| if (!try self.validText(schema, text)) return false,
            .integer, .float, .number_string => if (!try self.validNumber(schema, value)) return false,
            .array => |array| if (!try self.validArray(schema, array.items)) return false,
            .object => |map| if (!try self.validObject(schema, map)) return false,
            else => {},
        }
        if (schema.ref) |ref| {
            if (self.references == nesting_limit) return error.TooDeep;
            self.references += 1;
            defer self.references -= 1;
            if (!try self.valid(ref, value)) return false;
        }
        for (schema.all) |one| if (!try self.valid(one, value)) return false;
        if (schema.any.len > 0 and try self.matching(schema.any, value, 1) == 0) return self.wrong("matches nothing of anyOf", .{});
        if (schema.one.len > 0) {
            const count = try self.matching(schema.one, value, 2);
            if (count != 1) return self.wrong("matches {s} of oneOf", .{if (count == 0) "nothing" else "more than one"});
        }
        if (schema.not) |not| if (try self.matching(&.{not}, value, 1) > 0) return self.wrong("is what it must not be", .{});
        return true;
    }

    /// How many match, counted up to `enough`.
    fn matching(self: *Validator, schemas: []const *const Schema, value: *const Value, enough: usize) error{ OutOfMemory, TooDeep }!usize {
        var count: usize = 0;
        for (schemas) |one| {
            count += @intFromBool(try self.valid(one, value));
            self.finding = null;
            if (count == enough) break;
        }
        return count;
    }

    fn validText(self: *Validator, schema: *const Schema, text: []const u8) error{OutOfMemory}!bool {
        if (schema.least_length > 0 or schema.most_length < text.len) {
            const length = std.unicode.utf8CountCodepoints(text) catch text.len;
            if (length < schema.least_length) return self.wrong("is shorter than {d}", .{schema.least_length});
            if (length > schema.most_length) return self.wrong("is longer than {d}", .{schema.most_length});
        }
        if (schema.format) |format| if (!hasFormat(format, text)) return self.wrong("is not of the format {s}", .{@tagName(format)});
        return true;
    }

    fn validNumber(self: *Validator, schema: *const Schema, value: *const Value) error{OutOfMemory}!bool {
        const number = asNumber(value.*).?;
        if (schema.minimum) |least| if (number < least) return self.wrong("is less than {d}", .{least});
        if (schema.maximum) |most| if (number > most) return self.wrong("is more than {d}", .{most});
        if (schema.above) |least| if (number <= least) return self.wrong("is not more than {d}", .{least});
        if (schema.below) |most| if (number >= most) return self.wrong("is not less than {d}", .{most});
        if (schema.multiple) |step| {
            if (@rem(number, @as(f64, @floatFromInt(step))) != 0) return self.wrong("is no multiple of {d}", .{step});
        }
        return true;
    }

    fn validArray(self: *Validator, schema: *const Schema, items: []const Value) error{ OutOfMemory, TooDeep }!bool {
        if (items.len < schema.least_items) return self.wrong("has fewer than {d} items", .{schema.least_items});
        if (items.len > schema.most_items) return self.wrong("has more than {d} items", .{schema.most_items});
        for (items, 0..) |*item, index| {
            const one = if (index < schema.prefix.len) schema.prefix[index] else schema.items orelse break;
            if (!try self.below(.{ .index = index }, one, item)) return false;
        }
        if (schema.unique) for (items, 0..) |a, index| {
            for (items[0..index]) |b| if (equal(a, b)) return self.wrong("has the same item twice", .{});
        };
        return true;
    }

    fn validObject(self: *Validator, schema: *const Schema, map: std.json.ObjectMap) error{ OutOfMemory, TooDeep }!bool {
        if (map.count() < schema.least_properties) return self.wrong("has fewer than {d} properties", .{schema.least_properties});
        if (map.count() > schema.most_properties) return self.wrong("has more than {d} properties", .{schema.most_properties});
        for (schema.required) |name| if (!map.contains(name)) return self.wrong("lacks the property '{s}'", .{name});
        if (schema.properties.len == 0 and schema.additional == null and schema.names == null) return true;
        keys: for (map.keys(), map.values()) |name, *item| {
            if (schema.names) |names| if (!try self.below(.{ .key = name }, names, &.{ .string = name })) return false;
            for (schema.properties) |property| {
                if (!std.mem.eql(u8, property.name, name)) continue;
                if (!try self.below(.{ .key = name }, property.schema, item)) return false;
                continue :keys;
            }
            if (schema.additional) |additional| if (!try self.below(.{ .key = name }, additional, item)) return false;
        }
        return true;
    }

    fn below(self: *Validator, step: Step, schema: *const Schema, value: *const Value) error{ OutOfMemory, TooDeep }!bool {
        if (self.depth == self.path.len) return error.TooDeep;
        self.path[self.depth] = step;
        self.depth += 1;
        defer self.depth -= 1;
        const references = self.references;
        self.references = 0;
        defer self.references = references;
        return self.valid(schema, value);
    }

    fn wrong(self: *Validator, comptime format: []const u8, arguments: anytype) error{OutOfMemory}!bool {
        var pointer: std.ArrayList(u8) = .empty;
        for (self.path[0..self.depth]) |step| {
            try pointer.append(self.arena, '/');
            switch (step) {
                .index => |index| try pointer.print(self.arena, "{d}", .{index}),
                .key => |key| for (key) |c| switch (c) {
                    '~' => try pointer.appendSlice(self.arena, "~0"),
                    '/' => try pointer.appendSlice(self.arena, "~1"),
                    else => try pointer.append(self.arena, c),
                },
            }
        }
        self.finding = .{ .pointer = pointer.items, .problem = try std.fmt.allocPrint(self.arena, format, arguments) };
        return false;
    }
};

const Names = struct {
    kinds: Kinds,

    pub fn format(self: Names, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        var iterator = self.kinds.iterator();
        var first = true;
        while (iterator.next()) |kind| : (first = false) try writer.print("{s}{s}", .{ if (first) "" else " or ", @tagName(kind) });
    }
};

fn matchesKind(kinds: Kinds, value: Value) bool {
    return switch (value) {
        .null => kinds.contains(.null),
        .bool => kinds.contains(.boolean),
        .string => kinds.contains(.string),
        .array => kinds.contains(.array),
        .object => kinds.contains(.object),
        .integer => kinds.contains(.integer) or kinds.contains(.number),
        // 1.0 is an integer (JSON Schema 2020-12, section 6.1.1 of the validation part).
        .float, .number_string => kinds.contains(.number) or (kinds.contains(.integer) and isWhole(value)),
    };
}

fn isWhole(value: Value) bool {
    const number = asNumber(value) orelse return false;
    return std.math.isFinite(number) and @trunc(number) == number;
}

fn equal(a: Value, b: Value) bool {
    if (asNumber(a)) |x| return if (asNumber(b)) |y| x == y else false;
    return switch (a) {
        .null => b == .null,
        .bool => |x| b == .bool and b.bool == x,
        .string => |x| b == .string and std.mem.eql(u8, x, b.string),
        .array => |x| b == .array and x.items.len == b.array.items.len and for (x.items, b.array.items) |c, d| {
            if (!equal(c, d)) break false;
        } else true,
        .object => |x| b == .object and x.count() == b.object.count() and for (x.keys(), x.values()) |key, c| {
            if (!equal(c, b.object.get(key) orelse break false)) break false;
        } else true,
        else => false,
    };
}

// ---- formats ----

fn hasFormat(format: Format, text: []const u8) bool {
    return switch (format) {
        .uuid => matches(text, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"),
        .date => isDate(text),
        .@"date-time" => isDateTime(text),
        .email => isEmail(text),
        .ipv4 => if (std.Io.net.Ip4Address.parse(text, 0)) |_| true else |_| false,
        .ipv6 => std.mem.findScalar(u8, text, '%') == null and text.len <= 45 and
            (if (std.Io.net.Ip6Address.parse(text, 0)) |_| true else |_| false),
        .uri => isUri(text),
    };
}

/// `x` is a hex digit, `0` a digit, the rest itself.
fn matches(text: []const u8, form: []const u8) bool {
    if (text.len != form.len) return false;
    for (text, form) |c, expected| {
        const good = switch (expected) {
            'x' => std.ascii.isHex(c),
            '0' => std.ascii.isDigit(c),
            else => c == expected,
        };
        if (!good) return false;
    }
    return true;
}

fn isDate(text: []const u8) bool {
    if (!matches(text, "0000-00-00")) return false;
    const year = std.fmt.parseInt(u32, text[0..4], 10) catch return false;
    const month = std.fmt.parseInt(u32, text[5..7], 10) catch return false;
    const day = std.fmt.parseInt(u32, text[8..10], 10) catch return false;
    if (month < 1 or month > 12 or day < 1) return false;
    const leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0);
    const days = [_]u32{ 31, if (leap) 29 else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    return day <= days[month - 1];
}

/// RFC 3339 section 5.6.
fn isDateTime(text: []const u8) bool {
    if (text.len < 20 or !isDate(text[0..10]) or (text[10] != 'T' and text[10] != 't')) return false;
    if (!matches(text[11..19], "00:00:00")) return false;
    if (text[11] > '2' or (text[11] == '2' and text[12] > '3') or text[14] > '5' or text[17] > '6') return false;
    if (text[17] == '6' and text[18] != '0') return false;
    var at: usize = 19;
    if (text[at] == '.') {
        at += 1;
        const start = at;
        while (at < text.len and std.ascii.isDigit(text[at])) at += 1;
        if (at == start) return false;
    }
    const zone = text[at..];
    if (zone.len == 1) return zone[0] == 'Z' or zone[0] == 'z';
    if (!matches(zone, "+00:00") and !matches(zone, "-00:00")) return false;
    return !(zone[1] > '2' or (zone[1] == '2' and zone[2] > '3') or zone[4] > '5');
}

fn isEmail(text: []const u8) bool {
    const at = std.mem.findScalarLast(u8, text, '@') orelse return false;
    const domain = text[at + 1 ..];
    if (at == 0 or at > 64 or domain.len == 0 or domain.len > 253) return false;
    for (text[0..at], 0..) |c, index| {
        const dot = c == '.' and index > 0 and index + 1 < at and text[index - 1] != '.';
        if (!dot and !std.ascii.isAlphanumeric(c) and std.mem.findScalar(u8, "!#$%&'*+-/=?^_`{|}~", c) == null) return false;
    }
    var labels = std.mem.splitScalar(u8, domain, '.');
    while (labels.next()) |label| {
        if (label.len == 0 or label.len > 63 or label[0] == '-' or label[label.len - 1] == '-') return false;
        for (label) |c| if (!std.ascii.isAlphanumeric(c) and c != '-') return false;
    }
    return true;
}

/// A scheme, a colon, something behind it, and no character that a URI cannot have.
fn isUri(text: []const u8) bool {
    const colon = std.mem.findScalar(u8, text, ':') orelse return false;
    if (colon == 0 or colon + 1 == text.len or !std.ascii.isAlphabetic(text[0])) return false;
    for (text[0..colon]) |c| if (!std.ascii.isAlphanumeric(c) and std.mem.findScalar(u8, "+-.", c) == null) return false;
    for (text) |c| if (c <= 0x20 or c >= 0x7f or std.mem.findScalar(u8, "\"<>\\^`{|}", c) != null) return false;
    return true;
}
