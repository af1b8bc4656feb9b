//! ip-restriction: admits or refuses clients by their address, also behind trusted proxies.

const std = @import("std");
const pw = @import("proxy_wasm");
const config = @import("config");
const address = @import("address");

pub const panic = pw.panic;

const Root = struct {
    allow: ?address.Ranges,
    deny: address.Ranges,
    proxies: address.Ranges,
    status: u32,
    body: []const u8,

    /// An address that cannot be told is in no range: refused if there is a list of those to admit, or of those not to.
    fn admits(self: *const Root, client: ?address.Address) bool {
        const known = client orelse return false;
        if (self.deny.has(known)) return false;
        return if (self.allow) |allow| allow.has(known) else true;
    }

    pub fn read(reader: config.Reader) config.Error!Root {
        const settings = try reader.object();
        try reader.onlyKeys(settings, "the configuration", &.{ "allow", "deny", "trusted_proxies", "status", "body" });
        var root = Root{ .allow = null, .deny = .{}, .proxies = .{}, .status = 403, .body = "403 Forbidden\n" };
        if (settings.get("allow")) |value| root.allow = try address.Ranges.read(reader, value, "allow");
        if (settings.get("deny")) |value| root.deny = try address.Ranges.read(reader, value, "deny");
        if (settings.get("trusted_proxies")) |value| root.proxies = try address.Ranges.read(reader, value, "trusted_proxies");
        if (settings.get("status")) |value| root.status = @intCast(try reader.asInteger(value, "status", 400, 599));
        if (settings.get("body")) |value| root.body = try reader.asString(value, "body");
        if (root.allow == null and root.deny.items.len == 0)
            return reader.refuse("neither allow nor deny, everybody would get in", .{});
        return root;
    }
};

var roots: config.Roots(Root, "ip-restriction") = .{};

export fn proxy_on_context_create(context: u32, parent: u32) void {
    roots.create(context, parent);
}

export fn proxy_on_configure(root: u32, _: usize) bool {
    return roots.configure(root);
}

export fn proxy_on_request_headers(context: u32, _: u32, _: bool) pw.Action {
    const root = roots.of(context) orelse {
        pw.sendLocalResponse(500, "ip_restriction_not_configured", "", &.{});
        return .pause;
    };
    if (root.admits(address.client(root.proxies))) return .proceed;
    pw.sendLocalResponse(root.status, "ip_restriction_denied", root.body, &.{});
    return .pause;
}

export fn proxy_on_delete(context: u32) void {
    roots.delete(context);
}
