//! The typical header filter, for benchmarks: on both paths it reads two headers, adds one and replaces one. Nothing
//! else is in it, so that what is measured is the host.

const pw = @import("proxy_wasm");

pub const panic = pw.panic;

export fn proxy_on_context_create(_: u32, _: u32) void {}

export fn proxy_on_request_headers(_: u32, _: u32, _: bool) pw.Action {
    edit(pw.request_headers, ":path", "user-agent");
    return .proceed;
}

export fn proxy_on_response_headers(_: u32, _: u32, _: bool) pw.Action {
    edit(pw.response_headers, ":status", "content-type");
    return .proceed;
}

export fn proxy_on_done(_: u32) bool {
    return true;
}

export fn proxy_on_log(_: u32) void {}

export fn proxy_on_delete(_: u32) void {}

fn edit(headers: pw.HeaderMap, first: []const u8, second: []const u8) void {
    if (headers.get(second)) |value| pw.free(value);
    headers.add("x-probe", "1");
    const value = headers.get(first) orelse return;
    defer pw.free(value);
    headers.set("x-probe-seen", value);
}
