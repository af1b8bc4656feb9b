//! pii-mask: masks e-mail addresses, card numbers and telephone numbers in bodies while they stream through.

const std = @import("std");
const pw = @import("proxy_wasm");
const config = @import("config");
const body_of = @import("body");
const masker = @import("masker.zig");

pub const panic = pw.panic;

const longest_replacement = 64;

const Root = struct {
    request: bool,
    response: bool,
    types: body_of.Types,
    replacements: masker.Replacements,
    refuse_unreadable: bool,
    counters: std.EnumArray(masker.Kind, pw.Counter),

    pub const read = readConfiguration;
};

const Body = struct { root: *const Root, progress: masker.Progress };

var roots: config.Roots(Root, "pii-mask") = .{};
// Only a body that is looked at has one.
var requests: pw.ContextMap(*Body) = .{};
var responses: pw.ContextMap(*Body) = .{};

var joined: std.ArrayList(u8) = .empty;
var output: std.ArrayList(u8) = .empty;
const largest_idle_buffer = 2 * 1024 * 1024;

// ---- callbacks ----

export fn proxy_on_context_create(context: u32, parent: u32) void {
    roots.create(context, parent);
}

export fn proxy_on_configure(root: u32, _: usize) bool {
    return roots.configure(root);
}

export fn proxy_on_request_headers(context: u32, _: u32, end_of_stream: bool) pw.Action {
    const root = roots.of(context) orelse return .proceed;
    if (root.response) {
        // What is compressed, or a part of something, could not be masked.
        pw.request_headers.set("accept-encoding", "identity");
        pw.request_headers.remove("range");
        pw.request_headers.remove("if-range");
    }
    if (!root.request or end_of_stream) return .proceed;
    switch (judge(root, pw.request_headers)) {
        .other => {},
        .readable => |json| {
            body_of.announceEdit(pw.request_headers);
            requests.put(context, begin(root, json));
        },
        .unreadable => if (root.refuse_unreadable) {
            pw.sendLocalResponse(415, "pii_mask_unreadable_request", "415 Unsupported Media Type\n", &.{});
            return .pause;
        },
    }
    return .proceed;
}

export fn proxy_on_request_body(context: u32, size: usize, end_of_stream: bool) pw.Action {
    if (requests.get(context)) |body| mask(body.*, .request_body, size, end_of_stream);
    return .proceed;
}

export fn proxy_on_request_trailers(context: u32, _: u32) pw.Action {
    return endByTrailers(requests.get(context), .request);
}

export fn proxy_on_response_headers(context: u32, _: u32, end_of_stream: bool) pw.Action {
    const root = roots.of(context) orelse return .proceed;
    if (!root.response) return .proceed;
    switch (judge(root, pw.response_headers)) {
        .other => {},
        .readable => |json| {
            body_of.announceEdit(pw.response_headers);
            if (!end_of_stream) responses.put(context, begin(root, json));
        },
        .unreadable => if (root.refuse_unreadable and !end_of_stream) {
            pw.log(.warn, "pii-mask: a response that cannot be read was held back", .{});
            pw.sendLocalResponse(502, "pii_mask_unreadable_response", "502 Bad Gateway\n", &.{});
            return .pause;
        },
    }
    return .proceed;
}

export fn proxy_on_response_body(context: u32, size: usize, end_of_stream: bool) pw.Action {
    if (responses.get(context)) |body| mask(body.*, .response_body, size, end_of_stream);
    return .proceed;
}

export fn proxy_on_response_trailers(context: u32, _: u32) pw.Action {
    return endByTrailers(responses.get(context), .response);
}

export fn proxy_on_delete(context: u32) void {
    roots.delete(context);
    for ([_]*pw.ContextMap(*Body){ &requests, &responses }) |map| {
        if (map.get(context)) |body| pw.allocator.destroy(body.*);
        _ = map.remove(context);
    }
}

// ---- which messages ----

const Verdict = union(enum) { other, unreadable, readable: bool };

/// Whether a message with these headers is one to mask; of a readable one whether it is JSON.
fn judge(root: *const Root, headers: pw.HeaderMap) Verdict {
    const content_type = headers.get("content-type") orelse return .other;
    defer pw.free(content_type);
    if (!root.types.has(content_type)) return .other;
    if (body_of.isEncoded(headers) or (headers == .response and body_of.isPartial())) return .unreadable;
    if (!hasAsciiCharset(content_type)) return .unreadable;
    return .{ .readable = std.ascii.findIgnoreCase(content_type, "json") != null };
}

/// UTF-16 and UTF-32 do not write letters and digits as single bytes; the others that are in use do.
fn hasAsciiCharset(content_type: []const u8) bool {
    return std.ascii.findIgnoreCase(content_type, "utf-16") == null and std.ascii.findIgnoreCase(content_type, "utf-32") == null and
        std.ascii.findIgnoreCase(content_type, "ucs-") == null;
}

fn begin(root: *const Root, json: bool) *Body {
    const body = pw.allocator.create(Body) catch pw.outOfMemory();
    body.* = .{ .root = root, .progress = .{ .replacements = &root.replacements, .json = json } };
    return body;
}

// ---- masking ----

fn mask(body: *Body, buffer: pw.Buffer, size: usize, end_of_stream: bool) void {
    const input = buffer.read(0, size);
    defer pw.free(input);
    var counts: masker.Counts = .initFill(0);
    const result = masker.feed(&body.progress, input, end_of_stream, &joined, &output, &counts) catch pw.outOfMemory();
    if (result.ptr != input.ptr) buffer.replace(result);
    for (std.enums.values(masker.Kind)) |kind| body.root.counters.get(kind).add(counts.get(kind));
    for ([_]*std.ArrayList(u8){ &joined, &output }) |list| {
        if (list.capacity > largest_idle_buffer) list.clearAndFree(pw.allocator);
    }
}

/// Trailers end a body without a last piece, and no host lets a filter add to the body then. What is held back would be
/// missing, so the stream is reset in that rare case: trailers right after what may have been the beginning of a match.
fn endByTrailers(ended: ?**Body, side: pw.StreamType) pw.Action {
    const body = ended orelse return .proceed;
    if (body.*.progress.held_length == 0) return .proceed;
    pw.log(.err, "pii-mask: trailers after a possible match; the stream is reset", .{});
    pw.closeStream(side);
    return .pause;
}

// ---- reading the configuration ----

fn readConfiguration(reader: config.Reader) config.Error!Root {
    const settings = try reader.object();
    try reader.onlyKeys(settings, "the configuration", &.{ "request", "response", "types", "mask", "unreadable" });
    var root = Root{
        .request = false,
        .response = true,
        .types = .{ .patterns = &.{ "application/json", "*+json", "text/*" } },
        .replacements = .init(.{ .email = "***@{domain}", .card = "****{last4}", .phone = "***{last4}" }),
        .refuse_unreadable = true,
        .counters = undefined,
    };
    if (settings.get("request")) |value| root.request = try reader.asBool(value, "request");
    if (settings.get("response")) |value| root.response = try reader.asBool(value, "response");
    if (!root.request and !root.response) return reader.refuse("request and response are both false, nothing would be masked", .{});
    if (settings.get("types")) |value| root.types = try body_of.Types.read(reader, value);
    if (settings.get("unreadable")) |value| {
        root.refuse_unreadable = try reader.asEnum(enum { refuse, pass }, value, "unreadable") == .refuse;
    }
    if (settings.get("mask")) |value| try readMask(reader, value, &root.replacements);
    for (std.enums.values(masker.Kind)) |kind| {
        const name = try std.fmt.allocPrint(reader.arena, "kind=.={s};.;pii_masked", .{@tagName(kind)});
        root.counters.set(kind, .define(name));
    }
    return root;
}

fn readMask(reader: config.Reader, value: config.Value, replacements: *masker.Replacements) config.Error!void {
    const kinds = try reader.asObject(value, "mask");
    try reader.onlyKeys(kinds, "mask", &.{ "email", "card", "phone" });
    var any = false;
    inline for (comptime std.enums.values(masker.Kind)) |kind| {
        const path = "mask." ++ @tagName(kind);
        if (kinds.get(@tagName(kind))) |item| {
            if (item == .bool and !item.bool) {
                replacements.set(kind, null);
            } else if (item != .bool) {
                const text = try reader.asString(item, path);
                // It has to be the same in JSON, where a quote or a backslash would mean something.
                if (config.hasControls(text) or std.mem.findAny(u8, text, "\"\\") != null)
                    return reader.refuse(path ++ ": without quotes, backslashes and control characters", .{});
                if (text.len > longest_replacement) return reader.refuse(path ++ ": at most {d} bytes", .{longest_replacement});
                replacements.set(kind, text);
            }
        }
        any = any or replacements.get(kind) != null;
    }
    if (!any) return reader.refuse("mask: every kind is false, nothing would be masked", .{});
}
