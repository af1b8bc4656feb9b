//! Buffers a response's body, parses it as JSON into a tree and counts the objects. The configuration is the number that
//! must come out; another one, or text that is no JSON, ends in a reset, so every answer that arrives was parsed.

const std = @import("std");
const pw = @import("proxy_wasm");

pub const panic = pw.panic;

var expected: usize = 0;

export fn proxy_on_configure(_: u32, length: usize) bool {
    const text = pw.Buffer.plugin_configuration.read(0, length);
    defer pw.free(text);
    expected = std.fmt.parseInt(usize, text, 10) catch return false;
    return true;
}

export fn proxy_on_response_headers(_: u32, _: u32, _: bool) pw.Action {
    pw.response_headers.add("x-probe", "1");
    return .proceed;
}

export fn proxy_on_response_body(_: u32, _: usize, end_of_stream: bool) pw.Action {
    if (!end_of_stream) return .pause;
    const body = pw.Buffer.response_body.read(0, std.math.maxInt(u32));
    defer pw.free(body);
    const found = objects(body) catch 0;
    if (found != expected) pw.closeStream(.response);
    return .proceed;
}

/// The work of one request without a host: what benchmarks/metering.py times. The objects in `length` bytes or a little less.
export fn work(length: usize) u32 {
    const row = "{\"id\": 1234, \"name\": \"an ordinary item\", \"price\": 12.5, \"tags\": [\"a\", \"b\"], \"sold\": false}";
    const rows = length / (row.len + 1);
    const text = pw.allocator.alloc(u8, rows * (row.len + 1) + 1) catch pw.outOfMemory();
    defer pw.allocator.free(text);
    for (0..rows) |index| {
        text[index * (row.len + 1)] = if (index == 0) '[' else ',';
        @memcpy(text[index * (row.len + 1) + 1 ..][0..row.len], row);
    }
    text[text.len - 1] = ']';
    return @intCast(objects(text) catch 0);
}

fn objects(text: []const u8) !usize {
    var arena = std.heap.ArenaAllocator.init(pw.allocator);
    defer arena.deinit();
    return count(try std.json.parseFromSliceLeaky(std.json.Value, arena.allocator(), text, .{}));
}

fn count(value: std.json.Value) usize {
    var sum: usize = 0;
    switch (value) {
        .array => |array| for (array.items) |item| {
            sum += count(item);
        },
        .object => |object| {
            sum += 1;
            for (object.values()) |item| sum += count(item);
        },
        else => {},
    }
    return sum;
}
