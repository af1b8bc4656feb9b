//! Makes one host function many times on every request. The configuration is its short name and how often: "get 200".
//! The CPU that 200 calls cost more than none, over 200, is what one call costs.

const std = @import("std");
const pw = @import("proxy_wasm");

pub const panic = pw.panic;

extern "env" fn proxy_increment_metric(metric: u32, offset: i64) u32;
extern "env" fn proxy_define_metric(kind: u32, name: [*]const u8, length: usize, metric: *u32) u32;

const Call = enum { get, set, pairs, property, time, metric };
const path = "request\x00method";
const counter = "bench";

var call: Call = .get;
var times: usize = 0;
var metric: u32 = 0;

export fn proxy_on_configure(_: u32, length: usize) bool {
    const text = pw.Buffer.plugin_configuration.read(0, length);
    defer pw.free(text);
    const space = std.mem.indexOfScalar(u8, text, ' ') orelse return false;
    call = std.meta.stringToEnum(Call, text[0..space]) orelse return false;
    times = std.fmt.parseInt(usize, text[space + 1 ..], 10) catch return false;
    return proxy_define_metric(0, counter, counter.len, &metric) == 0;
}

export fn proxy_on_request_headers(_: u32, _: u32, _: bool) pw.Action {
    for (0..times) |_| one();
    return .proceed;
}

export fn proxy_on_response_headers(_: u32, _: u32, _: bool) pw.Action {
    pw.response_headers.add("x-probe", "1");
    return .proceed;
}

fn one() void {
    switch (call) {
        .get => if (pw.request_headers.get("user-agent")) |value| pw.free(value),
        .set => pw.request_headers.set("x-probe-seen", "value"),
        .pairs => {
            const fields = pw.request_headers.all();
            defer fields.deinit();
            if (fields.block.len == 0) @panic("pairs");
        },
        .property => pw.free(pw.property(path) orelse @panic("property")),
        .time => std.mem.doNotOptimizeAway(pw.now()),
        .metric => if (proxy_increment_metric(metric, 1) != 0) @panic("metric"),
    }
}
