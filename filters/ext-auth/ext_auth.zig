//! ext-auth: asks another service about every request, by its headers, and does what that answers: 2xx lets the request
//! go on, 3xx and 4xx go to the client. Everything else, and no answer, is a failure: closed or open.

const std = @import("std");
const pw = @import("proxy_wasm");
const config = @import("config");

pub const panic = pw.panic;

const largest_body = 64 * 1024;

const Root = struct {
    cluster: []const u8,
    host: []const u8,
    path: []const u8,
    timeout: u32, // milliseconds
    /// Names of headers: that the service is told, that it may write to the request, that it may give to the client.
    send: []const []const u8,
    upstream: []const []const u8,
    client: []const []const u8,
    open: bool,
    failure_status: u32,

    pub fn read(reader: config.Reader) config.Error!Root {
        const settings = try reader.object();
        try reader.onlyKeys(settings, "the configuration", &.{
            "cluster", "host", "path", "timeout", "send_headers", "upstream_headers", "client_headers", "on_failure", "failure_status",
        });
        var root = Root{
            .cluster = undefined,
            .host = undefined,
            .path = "/",
            .timeout = 1000,
            .send = &.{ "authorization", "cookie" },
            .upstream = &.{},
            .client = &.{ "www-authenticate", "location", "set-cookie", "content-type" },
            .open = false,
            .failure_status = 503,
        };
        root.cluster = try reader.asString(settings.get("cluster") orelse return reader.refuse("cluster: is missing", .{}), "cluster");
        root.host = if (settings.get("host")) |value| try reader.asHeaderValue(value, "host") else root.cluster;
        if (settings.get("path")) |value| root.path = try reader.asHeaderValue(value, "path");
        if (!std.mem.startsWith(u8, root.path, "/") or std.mem.findScalar(u8, root.path, ' ') != null)
            return reader.refuse("path: must begin with / and have no spaces", .{});
        if (settings.get("timeout")) |value| root.timeout = @intCast(try reader.asInteger(value, "timeout", 1, 30_000));
        if (settings.get("send_headers")) |value| root.send = try names(reader, value, "send_headers");
        if (settings.get("upstream_headers")) |value| root.upstream = try names(reader, value, "upstream_headers");
        if (settings.get("client_headers")) |value| root.client = try names(reader, value, "client_headers");
        if (settings.get("on_failure")) |value| root.open = try reader.asEnum(enum { open, closed }, value, "on_failure") == .open;
        if (settings.get("failure_status")) |value| root.failure_status = @intCast(try reader.asInteger(value, "failure_status", 400, 599));
        return root;
    }

    fn names(reader: config.Reader, value: config.Value, path: []const u8) config.Error![]const []const u8 {
        const items = try reader.asList(value, path);
        const list = try reader.arena.alloc([]const u8, items.len);
        for (list, items) |*name, item| {
            name.* = try reader.asHeaderName(item, path);
            // They belong to the connection, or to the message that they are in.
            for ([_][]const u8{ "connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade" }) |own| {
                if (std.mem.eql(u8, name.*, own)) return reader.refuse("{s}: '{s}' is not one to copy", .{ path, own });
            }
        }
        return list;
    }
};

var roots: config.Roots(Root, "ext-auth") = .{};
/// The stream that each call is about, by the call's token: answers come to the root context.
var calls: pw.ContextMap(u32) = .{};
var call_of_stream: pw.ContextMap(u32) = .{};

export fn proxy_on_context_create(context: u32, parent: u32) void {
    roots.create(context, parent);
}

export fn proxy_on_configure(root: u32, _: usize) bool {
    return roots.configure(root);
}

export fn proxy_on_request_headers(context: u32, _: u32, _: bool) pw.Action {
    const root = roots.of(context) orelse {
        pw.sendLocalResponse(500, "ext_auth_not_configured", "", &.{});
        return .pause;
    };
    var fields = pw.request_headers.all();
    defer fields.deinit();
    var headers: std.ArrayList(pw.Header) = .empty;
    defer headers.deinit(pw.allocator);
    for ([_]pw.Header{
        .{ ":method", "GET" },
        .{ ":path", root.path },
        .{ ":authority", root.host },
        .{ ":scheme", "http" },
    }) |header| append(&headers, header);
    while (fields.next()) |field| {
        if (std.mem.eql(u8, field[0], ":method")) append(&headers, .{ "x-original-method", field[1] });
        if (std.mem.eql(u8, field[0], ":path")) append(&headers, .{ "x-original-uri", field[1] });
        if (std.mem.eql(u8, field[0], ":authority")) append(&headers, .{ "x-original-host", field[1] });
        // Who asks cannot say that it was another request.
        if (!std.mem.startsWith(u8, field[0], "x-original-") and contains(root.send, field[0])) append(&headers, field);
    }
    if (pw.httpCall(root.cluster, headers.items, "", root.timeout)) |token| {
        calls.put(token, context);
        call_of_stream.put(context, token);
        return .pause;
    }
    pw.log(.err, "ext-auth: cluster '{s}' cannot be called", .{root.cluster});
    return if (fail(root, "ext_auth_no_call")) .proceed else .pause;
}

export fn proxy_on_http_call_response(_: u32, token: u32, _: u32, body_size: usize, _: u32) void {
    const stream = (calls.get(token) orelse return).*; // else the client has left
    forget(stream);
    const root = roots.of(stream) orelse return;
    // The answer can be read on the root context only, the request be edited on its own only.
    const answer = pw.HeaderMap.http_call_response;
    const text = answer.get(":status") orelse "";
    defer if (text.len > 0) pw.free(@constCast(text));
    var fields = answer.all();
    defer fields.deinit();
    const body = pw.Buffer.http_call_response_body.read(0, @min(body_size, largest_body));
    defer pw.free(body);
    if (pw.setEffectiveContext(stream)) apply(root, std.fmt.parseInt(u32, text, 10) catch 0, &fields, body);
}

fn apply(root: *const Root, status: u32, fields: *pw.Fields, body: []const u8) void {
    switch (status) {
        200...299 => {
            pw.request_headers.removeSpellings(root.upstream);
            while (fields.next()) |field| {
                if (contains(root.upstream, field[0])) pw.request_headers.add(field[0], field[1]);
            }
            pw.continueStream(.request);
        },
        300...499 => {
            var headers: std.ArrayList(pw.Header) = .empty;
            defer headers.deinit(pw.allocator);
            while (fields.next()) |field| {
                if (contains(root.client, field[0])) append(&headers, field);
            }
            pw.sendLocalResponse(status, "ext_auth_denied", body, headers.items);
        },
        else => {
            pw.log(.warn, "ext-auth: cluster '{s}' answered {d}", .{ root.cluster, status });
            if (fail(root, "ext_auth_failed")) pw.continueStream(.request);
        },
    }
}

export fn proxy_on_delete(context: u32) void {
    forget(context);
    roots.delete(context);
}

fn forget(stream: u32) void {
    const token = (call_of_stream.get(stream) orelse return).*;
    _ = calls.remove(token);
    _ = call_of_stream.remove(stream);
}

/// Whether the request goes on although nobody said so; if not, it is answered. What the service would have written must
/// not come from the client.
fn fail(root: *const Root, details: []const u8) bool {
    if (root.open) {
        pw.request_headers.removeSpellings(root.upstream);
        return true;
    }
    pw.sendLocalResponse(root.failure_status, details, "", &.{});
    return false;
}

fn contains(list: []const []const u8, name: []const u8) bool {
    for (list) |one| {
        if (std.mem.eql(u8, one, name)) return true;
    }
    return false;
}

fn append(headers: *std.ArrayList(pw.Header), header: pw.Header) void {
    headers.append(pw.allocator, header) catch pw.outOfMemory();
}
