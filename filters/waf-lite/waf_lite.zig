//! waf-lite: refuses requests that look like SQL injection, cross-site scripting, path traversal or command injection.

const std = @import("std");
const pw = @import("proxy_wasm");
const config = @import("config");
const body_of = @import("body");
const matcher = @import("matcher.zig");
const normal = @import("normal.zig");
const rules = @import("rules.zig");

pub const panic = pw.panic;

const Found = matcher.Found;

/// What one callback looks at, so that it stays within the default fuel whatever the client sends. A request with more of it
/// is refused: 9 KiB of path, cookies and the like, or comparisons as only text made of attacks needs.
const most_bytes = 9 * 1024;
const most_comparisons = 4_500;

const Exception = struct { prefix: []const u8, rules: Found };

const Root = struct {
    enabled: Found,
    threshold: u32,
    report: bool,
    status: u32,
    headers: []const []const u8,
    body: usize,
    refuse_long: bool,
    exceptions: []const Exception,
    counters: std.EnumArray(rules.Class, pw.Counter),

    pub const read = readConfiguration;

    fn score(self: *const Root, found: Found) u32 {
        _ = self;
        var sum: u32 = 0;
        var iterator = found.iterator(.{});
        while (iterator.next()) |index| sum += rules.all[index].score;
        return sum;
    }
};

const Form = enum { form, json, text };

/// A request whose body is awaited.
const Stream = struct { root: *const Root, enabled: Found, found: Found, form: Form };

var roots: config.Roots(Root, "waf-lite") = .{};
var streams: pw.ContextMap(Stream) = .{};
/// Of the callback that runs.
var bytes_left: usize = 0;
var exhausted = false;

fn begin() void {
    bytes_left = most_bytes;
    matcher.left = most_comparisons;
    exhausted = false;
}

// ---- callbacks ----

export fn proxy_on_context_create(context: u32, parent: u32) void {
    roots.create(context, parent);
}

export fn proxy_on_configure(root: u32, _: usize) bool {
    return roots.configure(root);
}

export fn proxy_on_request_headers(context: u32, _: u32, end_of_stream: bool) pw.Action {
    const root = roots.of(context) orelse return .proceed;
    begin();
    const fields = pw.request_headers.all();
    defer fields.deinit();
    var enabled = root.enabled;
    var found: Found = .empty;
    var form: ?Form = null;
    var encoded = false;
    var cursor = fields;
    while (cursor.next()) |field| {
        if (!std.mem.eql(u8, field[0], ":path")) continue;
        for (root.exceptions) |exception| {
            if (std.mem.startsWith(u8, field[1], exception.prefix)) enabled = enabled.differenceWith(exception.rules);
        }
        lookAtTarget(field[1], &found);
    }
    cursor = fields;
    while (cursor.next()) |field| {
        if (std.mem.eql(u8, field[0], "content-type")) form = formOf(field[1]);
        if (std.mem.eql(u8, field[0], "content-encoding")) encoded = !std.ascii.eqlIgnoreCase(field[1], "identity");
        for (root.headers) |name| {
            if (std.mem.eql(u8, field[0], name)) look(field[1], .text, &found);
        }
    }
    found = found.intersectWith(enabled);
    if (exhausted or root.score(found) >= root.threshold) return refuse(root, found, "head");
    if (end_of_stream or root.body == 0 or form == null or encoded) return .proceed;
    streams.put(context, .{ .root = root, .enabled = enabled, .found = found, .form = form.? });
    return .proceed;
}

export fn proxy_on_request_body(context: u32, size: usize, end_of_stream: bool) pw.Action {
    const stream = streams.get(context) orelse return .proceed;
    if (size <= stream.root.body and !end_of_stream) return .pause;
    return judgeBody(context, size);
}

export fn proxy_on_request_trailers(context: u32, _: u32) pw.Action {
    const stream = streams.get(context) orelse return .proceed;
    return judgeBody(context, stream.root.body);
}

export fn proxy_on_delete(context: u32) void {
    roots.delete(context);
    _ = streams.remove(context);
}

// ---- judging ----

fn judgeBody(context: u32, size: usize) pw.Action {
    const stream = streams.get(context).?.*;
    _ = streams.remove(context);
    const root = stream.root;
    if (size > root.body and root.refuse_long and !root.report) {
        pw.sendLocalResponse(413, "waf_lite_too_large", "413 Content Too Large\n", &.{});
        return .pause;
    }
    begin();
    bytes_left = @max(most_bytes, root.body);
    const body = pw.Buffer.request_body.read(0, root.body);
    defer pw.free(body);
    var found = stream.found;
    switch (stream.form) {
        .form => lookAtQuery(body, &found),
        .text => look(body, .text, &found),
        .json => lookAtStrings(body, &found),
    }
    found = found.intersectWith(stream.enabled);
    return if (exhausted or root.score(found) >= root.threshold) refuse(root, found, "body") else .proceed;
}

fn refuse(root: *const Root, found: Found, place: []const u8) pw.Action {
    var line: [256]u8 = undefined;
    var writer = std.Io.Writer.fixed(&line);
    var iterator = found.iterator(.{});
    var classes: std.EnumSet(rules.Class) = .empty;
    while (iterator.next()) |index| {
        const rule = rules.all[index];
        if (!classes.contains(rule.class)) root.counters.get(rule.class).add(1);
        classes.insert(rule.class);
        writer.print(" {s}", .{rule.id}) catch break;
    }
    if (exhausted) writer.writeAll(" too much to look at") catch {};
    // What matched is not logged: it may be somebody's password.
    const verb = if (root.report) "would refuse" else "refused";
    pw.log(.warn, "waf-lite: {s} a request, score {d}, {s}:{s}", .{ verb, root.score(found), place, writer.buffered() });
    if (root.report) return .proceed;
    pw.sendLocalResponse(root.status, "waf_lite_refused", "Forbidden\n", &.{});
    return .pause;
}

fn formOf(content_type: []const u8) ?Form {
    if (std.ascii.startsWithIgnoreCase(content_type, "application/x-www-form-urlencoded")) return .form;
    if (std.ascii.findIgnoreCase(content_type, "json") != null) return .json;
    return if (std.ascii.startsWithIgnoreCase(content_type, "text/plain")) .text else null;
}

fn lookAtTarget(target: []const u8, found: *Found) void {
    const mark = std.mem.findScalar(u8, target, '?') orelse target.len;
    look(target[0..mark], .path, found);
    if (mark < target.len) lookAtQuery(target[mark + 1 ..], found);
}

/// Each name and each value for itself, so that no match goes from one over to the next; and name=value, as `a[$ne]=b` is
/// about both.
fn lookAtQuery(query: []const u8, found: *Found) void {
    var parameters = std.mem.splitScalar(u8, query, '&');
    while (parameters.next()) |parameter| {
        const split = std.mem.findScalar(u8, parameter, '=') orelse 0;
        if (split > 0) look(parameter[0..split], .form, found);
        look(if (split > 0) parameter[split + 1 ..] else parameter, .form, found);
    }
}

/// The strings of a JSON text, keys too, whether the rest of it is JSON or not.
fn lookAtStrings(text: []const u8, found: *Found) void {
    const decoded = pw.allocator.alloc(u8, text.len) catch pw.outOfMemory();
    defer pw.allocator.free(decoded);
    var at: usize = 0;
    while (std.mem.findScalarPos(u8, text, at, '"')) |start| {
        var length: usize = 0;
        at = start + 1;
        while (at < text.len and text[at] != '"') : (at += 1) {
            var c = text[at];
            if (c == '\\' and at + 1 < text.len and text[at + 1] != 'u') {
                at += 1;
                c = switch (text[at]) {
                    'n', 'r', 't', 'b', 'f' => ' ',
                    else => text[at],
                };
            }
            decoded[length] = c;
            length += 1;
        }
        at += 1;
        look(decoded[0..length], .text, found);
    }
}

fn look(text: []const u8, source: normal.Source, found: *Found) void {
    if (text.len < 2) return;
    if (text.len > bytes_left or matcher.left == 0) {
        exhausted = true;
        return;
    }
    bytes_left -= text.len;
    const output = pw.allocator.alloc(u8, text.len) catch pw.outOfMemory();
    defer pw.allocator.free(output);
    matcher.find(normal.normalise(text, source, output), found);
    if (matcher.left == 0) exhausted = true;
}

// ---- reading the configuration ----

fn readConfiguration(reader: config.Reader) config.Error!Root {
    const settings = try reader.object();
    try reader.onlyKeys(settings, "the configuration", &.{
        "classes", "disable", "threshold", "mode", "status", "headers", "body", "long_body", "except",
    });
    var root = Root{
        .enabled = .full,
        .threshold = 5,
        .report = false,
        .status = 403,
        .headers = &.{ "user-agent", "referer", "cookie" },
        .body = 4096,
        .refuse_long = false,
        .exceptions = &.{},
        .counters = undefined,
    };
    if (settings.get("classes")) |value| {
        const items = try reader.asList(value, "classes");
        if (items.len == 0) return reader.refuse("classes: is empty, nothing would be looked for", .{});
        var classes: std.EnumSet(rules.Class) = .empty;
        for (items) |item| classes.insert(try reader.asEnum(rules.Class, item, "classes[]"));
        for (rules.all, 0..) |rule, index| root.enabled.setValue(index, classes.contains(rule.class));
    }
    if (settings.get("disable")) |value| root.enabled = root.enabled.differenceWith(try readRules(reader, value, "disable"));
    if (settings.get("threshold")) |value| root.threshold = @intCast(try reader.asInteger(value, "threshold", 1, 100));
    if (settings.get("mode")) |value| root.report = try reader.asEnum(enum { block, report }, value, "mode") == .report;
    if (settings.get("status")) |value| root.status = @intCast(try reader.asInteger(value, "status", 400, 499));
    if (settings.get("headers")) |value| {
        const items = try reader.asList(value, "headers");
        const names = try reader.arena.alloc([]const u8, items.len);
        for (names, items) |*name, item| name.* = try reader.asHeaderName(item, "headers[]");
        root.headers = names;
    }
    if (settings.get("body")) |value| root.body = @intCast(try reader.asInteger(value, "body", 0, 1 << 20));
    if (settings.get("long_body")) |value| root.refuse_long = try reader.asEnum(enum { pass, refuse }, value, "long_body") == .refuse;
    if (settings.get("except")) |value| {
        const items = try reader.asList(value, "except");
        const exceptions = try reader.arena.alloc(Exception, items.len);
        for (exceptions, items, 0..) |*exception, item, index| {
            const path = try std.fmt.allocPrint(reader.arena, "except[{d}]", .{index});
            const fields = try reader.asObject(item, path);
            try reader.onlyKeys(fields, path, &.{ "prefix", "rules" });
            const prefix = try reader.asString(fields.get("prefix") orelse return reader.refuse("{s}.prefix: is missing", .{path}), path);
            if (prefix.len == 0 or prefix[0] != '/') return reader.refuse("{s}.prefix: must begin with '/'", .{path});
            exception.* = .{ .prefix = prefix, .rules = .full };
            if (fields.get("rules")) |one| exception.rules = try readRules(reader, one, path);
        }
        root.exceptions = exceptions;
    }
    for (std.enums.values(rules.Class)) |class| {
        const name = try std.fmt.allocPrint(reader.arena, "class=.={s};.;waf_refused", .{@tagName(class)});
        root.counters.set(class, .define(name));
    }
    return root;
}

fn readRules(reader: config.Reader, value: config.Value, path: []const u8) config.Error!Found {
    var found: Found = .empty;
    outer: for (try reader.asStrings(value, path, path)) |id| {
        for (rules.all, 0..) |rule, index| {
            if (!std.mem.eql(u8, rule.id, id)) continue;
            found.set(index);
            continue :outer;
        }
        return reader.refuse("{s}: there is no rule '{s}'; the README lists them", .{ path, id });
    }
    return found;
}
