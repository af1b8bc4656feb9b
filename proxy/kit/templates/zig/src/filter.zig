const pw = @import("proxy_wasm");
pub const panic = pw.panic;

const longest = 64;
var greeting: []const u8 = "world";

export fn proxy_on_context_create(context: u32, parent: u32) void {
    _ = context;
    _ = parent;
}

export fn proxy_on_configure(root: u32, size: usize) bool {
    _ = root;
    if (size > longest) {
        pw.log(.err, "the greeting is longer than {d} bytes", .{longest});
        return false;
    }
    if (size > 0) greeting = pw.Buffer.plugin_configuration.read(0, size);
    return true;
}

export fn proxy_on_request_headers(context: u32, count: u32, end_of_stream: bool) pw.Action {
    _ = context;
    _ = count;
    _ = end_of_stream;
    const block = pw.request_headers.get("x-block") orelse return .proceed;
    pw.free(block);
    pw.log(.info, "blocked a request", .{});
    pw.sendLocalResponse(403, "blocked", "blocked\n", &.{});
    return .pause;
}

export fn proxy_on_response_headers(context: u32, count: u32, end_of_stream: bool) pw.Action {
    _ = context;
    _ = count;
    _ = end_of_stream;
    pw.response_headers.set("x-hello", greeting);
    return .proceed;
}
