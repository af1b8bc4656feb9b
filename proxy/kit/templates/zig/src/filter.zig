const pw = @import("proxy_wasm");
pub const panic = pw.panic;

const longest = 64;
/// By root: each configuration, a route's own too, has a root context, and all of them share this VM.
var greetings: pw.ContextMap([]const u8) = .{};
/// The root of each stream.
var roots: pw.ContextMap(u32) = .{};

export fn proxy_on_context_create(context: u32, parent: u32) void {
    if (parent != 0) roots.put(context, parent);
}

export fn proxy_on_delete(context: u32) void {
    _ = roots.remove(context);
}

export fn proxy_on_configure(root: u32, size: usize) bool {
    if (size > longest) {
        pw.log(.err, "the greeting is longer than {d} bytes", .{longest});
        return false;
    }
    greetings.put(root, if (size > 0) pw.Buffer.plugin_configuration.read(0, size) else "world");
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
    _ = count;
    _ = end_of_stream;
    const root = roots.get(context) orelse return .proceed;
    const greeting = greetings.get(root.*) orelse return .proceed;
    pw.response_headers.set("x-hello", greeting.*);
    return .proceed;
}
