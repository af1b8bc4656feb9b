//! json-validate: lets requests through only if their body is JSON of the configured form.

const std = @import("std");
const pw = @import("proxy_wasm");
const config = @import("config");
const body_of = @import("body");
const Parser = @import("document.zig").Parser;
const schemas = @import("schema.zig");

pub const panic = pw.panic;

const Rule = struct {
    path: ?[]const u8 = null,
    prefix: ?[]const u8 = null,
    methods: []const []const u8 = &.{ "POST", "PUT", "PATCH" },
    schema: *const schemas.Schema,

    fn takes(self: Rule, method: []const u8, path: []const u8) bool {
        if (self.path) |whole| if (!std.mem.eql(u8, whole, path)) return false;
        if (self.prefix) |start| if (!std.mem.startsWith(u8, path, start)) return false;
        for (self.methods) |one| if (std.mem.eql(u8, one, method)) return true;
        return false;
    }
};

const Root = struct {
    rules: []const Rule,
    types: body_of.Types,
    unmatched: enum { pass, refuse },
    mode: enum { block, report },
    most_bytes: usize,
    most_depth: usize,
    status: u32,
    explain: bool,

    pub const read = readConfiguration;
};

const Stream = struct { root: *const Root, schema: *const schemas.Schema };

var roots: config.Roots(Root, "json-validate") = .{};
/// Of requests whose body is awaited.
var streams: pw.ContextMap(Stream) = .{};

// ---- callbacks ----

export fn proxy_on_context_create(context: u32, parent: u32) void {
    roots.create(context, parent);
}

export fn proxy_on_configure(root: u32, _: usize) bool {
    return roots.configure(root);
}

export fn proxy_on_request_headers(context: u32, _: u32, end_of_stream: bool) pw.Action {
    const root = roots.of(context) orelse return .proceed;
    const method = pw.request_headers.get(":method") orelse return .proceed;
    defer pw.free(method);
    const target = pw.request_headers.get(":path") orelse return .proceed;
    defer pw.free(target);
    const path = target[0 .. std.mem.findAny(u8, target, "?#") orelse target.len];
    for (root.rules) |rule| {
        if (!rule.takes(method, path)) continue;
        if (end_of_stream) return deny(root, root.status, "json_validate_no_body", .{ .pointer = "", .problem = "there is no body" });
        const content_type = pw.request_headers.get("content-type") orelse return unsupported(root);
        defer pw.free(content_type);
        if (!root.types.has(content_type) or body_of.isEncoded(pw.request_headers)) return unsupported(root);
        if (tooLong(root)) return deny(root, 413, "json_validate_too_large", .{ .pointer = "", .problem = "is too large" });
        streams.put(context, .{ .root = root, .schema = rule.schema });
        // The head goes on: a filter that pauses here gets no body, in Envoy as in Penstock. What is refused has reached the
        // service as a head without a whole body, then.
        return .proceed;
    }
    if (root.unmatched == .refuse and !end_of_stream)
        return deny(root, root.status, "json_validate_no_rule", .{ .pointer = "", .problem = "no body is expected here" });
    return .proceed;
}

export fn proxy_on_request_body(context: u32, size: usize, end_of_stream: bool) pw.Action {
    const stream = streams.get(context) orelse return .proceed;
    const root = stream.root;
    if (size > root.most_bytes) {
        _ = streams.remove(context);
        return deny(root, 413, "json_validate_too_large", .{ .pointer = "", .problem = "is too large" });
    }
    return if (end_of_stream) finish(context, size) else .pause;
}

export fn proxy_on_request_trailers(context: u32, _: u32) pw.Action {
    const stream = streams.get(context) orelse return .proceed;
    return finish(context, stream.root.most_bytes);
}

export fn proxy_on_delete(context: u32) void {
    roots.delete(context);
    _ = streams.remove(context);
}

// ---- judging ----

fn unsupported(root: *const Root) pw.Action {
    return deny(root, 415, "json_validate_not_json", .{ .pointer = "", .problem = "is not declared as JSON" });
}

fn tooLong(root: *const Root) bool {
    const text = pw.request_headers.get("content-length") orelse return false;
    defer pw.free(text);
    return (std.fmt.parseInt(u64, text, 10) catch 0) > root.most_bytes;
}

fn finish(context: u32, size: usize) pw.Action {
    const stream = streams.get(context).?.*;
    _ = streams.remove(context);
    const source = pw.Buffer.request_body.read(0, size);
    defer pw.free(source);
    var arena: std.heap.ArenaAllocator = .init(pw.allocator);
    defer arena.deinit();
    const finding = judge(arena.allocator(), stream, source) catch pw.outOfMemory();
    return if (finding) |found| deny(stream.root, stream.root.status, "json_validate_invalid", found) else .proceed;
}

fn judge(arena: std.mem.Allocator, stream: Stream, source: []const u8) error{OutOfMemory}!?schemas.Finding {
    var parser = Parser{ .arena = arena, .source = source, .most_depth = stream.root.most_depth };
    const value = parser.parse() catch |reason| {
        const problem = switch (reason) {
            error.OutOfMemory => return error.OutOfMemory,
            error.TooDeep => "is nested too deep",
            // Two readers of the document could take different ones.
            error.Duplicate => "has a key twice in the object that ends",
            error.Malformed => "is not JSON",
        };
        return .{ .pointer = "", .problem = try std.fmt.allocPrint(arena, "{s} at byte {d}", .{ problem, parser.at }) };
    };
    var validator = schemas.Validator{ .arena = arena };
    const valid = validator.valid(stream.schema, &value) catch |reason| switch (reason) {
        error.OutOfMemory => return error.OutOfMemory,
        error.TooDeep => return .{ .pointer = "", .problem = "is nested too deep" },
    };
    return if (valid) null else validator.finding;
}

/// Answers with a problem document (RFC 9457), or only logs if the mode is `report`.
fn deny(root: *const Root, status: u32, details: []const u8, finding: schemas.Finding) pw.Action {
    if (root.mode == .report) {
        pw.log(.warn, "json-validate: would refuse a request: {s}: {s}", .{ finding.pointer, finding.problem });
        return .proceed;
    }
    var arena: std.heap.ArenaAllocator = .init(pw.allocator);
    defer arena.deinit();
    const Problem = struct { title: []const u8, status: u32, errors: ?[]const schemas.Finding };
    const problem = Problem{
        .title = "The request's body is not valid",
        .status = status,
        .errors = if (root.explain) &.{finding} else null,
    };
    const body = std.json.Stringify.valueAlloc(arena.allocator(), problem, .{ .emit_null_optional_fields = false }) catch pw.outOfMemory();
    pw.sendLocalResponse(status, details, body, &.{.{ "content-type", "application/problem+json" }});
    return .pause;
}

// ---- reading the configuration ----

fn readConfiguration(reader: config.Reader) config.Error!Root {
    const settings = try reader.object();
    try reader.onlyKeys(settings, "the configuration", &.{
        "rules", "types", "unmatched", "mode", "max_bytes", "max_depth", "status", "explain",
    });
    var root = Root{
        .rules = &.{},
        .types = .{ .patterns = &.{ "application/json", "*+json" } },
        .unmatched = .pass,
        .mode = .block,
        .most_bytes = 16384,
        .most_depth = 32,
        .status = 422,
        .explain = true,
    };
    if (settings.get("types")) |value| root.types = try body_of.Types.read(reader, value);
    if (settings.get("unmatched")) |value| root.unmatched = try reader.asEnum(@TypeOf(root.unmatched), value, "unmatched");
    if (settings.get("mode")) |value| root.mode = try reader.asEnum(@TypeOf(root.mode), value, "mode");
    if (settings.get("max_bytes")) |value| root.most_bytes = @intCast(try reader.asInteger(value, "max_bytes", 1, 16 << 20));
    if (settings.get("max_depth")) |value| root.most_depth = @intCast(try reader.asInteger(value, "max_depth", 1, 100));
    if (settings.get("status")) |value| root.status = @intCast(try reader.asInteger(value, "status", 400, 499));
    if (settings.get("explain")) |value| root.explain = try reader.asBool(value, "explain");
    const items = try reader.asList(settings.get("rules") orelse return reader.refuse("rules: is missing", .{}), "rules");
    if (items.len == 0) return reader.refuse("rules: is empty, nothing would be validated", .{});
    const rules = try reader.arena.alloc(Rule, items.len);
    for (rules, items, 0..) |*rule, item, index| {
        rule.* = try readRule(reader, item, try std.fmt.allocPrint(reader.arena, "rules[{d}]", .{index}));
    }
    root.rules = rules;
    return root;
}

fn readRule(reader: config.Reader, value: config.Value, path: []const u8) config.Error!Rule {
    const fields = try reader.asObject(value, path);
    try reader.onlyKeys(fields, path, &.{ "path", "prefix", "methods", "schema" });
    var compiler = schemas.Compiler{ .reader = reader };
    const schema = fields.get("schema") orelse return reader.refuse("{s}.schema: is missing", .{path});
    const at = try std.fmt.allocPrint(reader.arena, "{s}.schema", .{path});
    var rule = Rule{ .schema = try compiler.compile(schema, at) };
    if (fields.get("path")) |one| rule.path = try readPath(reader, one, path, "path");
    if (fields.get("prefix")) |one| rule.prefix = try readPath(reader, one, path, "prefix");
    if (rule.path != null and rule.prefix != null) return reader.refuse("{s}: has a path and a prefix; keep one", .{path});
    if (fields.get("methods")) |one| {
        const methods = try std.fmt.allocPrint(reader.arena, "{s}.methods", .{path});
        rule.methods = try reader.asStrings(one, methods, methods);
        if (rule.methods.len == 0) return reader.refuse("{s}: is empty", .{methods});
    }
    return rule;
}

fn readPath(reader: config.Reader, value: config.Value, path: []const u8, key: []const u8) config.Error![]const u8 {
    const at = try std.fmt.allocPrint(reader.arena, "{s}.{s}", .{ path, key });
    const text = try reader.asString(value, at);
    if (text.len == 0 or text[0] != '/') return reader.refuse("{s}: must begin with '/'", .{at});
    return text;
}
