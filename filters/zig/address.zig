//! IP addresses, CIDR ranges, and who the client is when there are proxies in front.

const std = @import("std");
const pw = @import("proxy_wasm");
const config = @import("config");

/// IPv4 as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2), so that both kinds are compared alike.
pub const Address = struct {
    bytes: [16]u8,

    /// `1.2.3.4` or `2001:db8::1`; no zone, no brackets, no port.
    pub fn parse(text: []const u8) ?Address {
        if (std.Io.net.Ip4Address.parse(text, 0)) |found| {
            return .{ .bytes = mapped ++ found.bytes };
        } else |_| {}
        if (text.len > 45 or std.mem.findScalar(u8, text, '%') != null) return null;
        const found = std.Io.net.Ip6Address.parse(text, 0) catch return null;
        return .{ .bytes = found.bytes };
    }

    /// The same with what `x-forwarded-for` and the property source.address may have around it: brackets, a port.
    pub fn parseWithPort(text: []const u8) ?Address {
        const trimmed = std.mem.trim(u8, text, " \t");
        if (std.mem.startsWith(u8, trimmed, "[")) {
            const end = std.mem.findScalar(u8, trimmed, ']') orelse return null;
            const rest = trimmed[end + 1 ..];
            if (rest.len > 0 and !isPort(rest)) return null;
            return parse(trimmed[1..end]);
        }
        const colon = std.mem.findScalar(u8, trimmed, ':') orelse return parse(trimmed);
        // A second colon: IPv6 without brackets, which has no port.
        if (std.mem.findScalarPos(u8, trimmed, colon + 1, ':') != null) return parse(trimmed);
        return if (isPort(trimmed[colon..])) parse(trimmed[0..colon]) else null;
    }

    pub fn isV4(self: Address) bool {
        return std.mem.startsWith(u8, &self.bytes, &mapped);
    }

    /// The address with all bits after the first `bits` of the 128 cleared.
    pub fn masked(self: Address, bits: u8) Address {
        var result = self;
        for (&result.bytes, 0..) |*byte, index| {
            const kept = @min(8, bits -| @as(u8, @intCast(8 * index)));
            byte.* &= if (kept == 0) 0 else @as(u8, 0xff) << @intCast(8 - kept);
        }
        return result;
    }
};

const mapped: [12]u8 = .{ 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

/// `:` and a number of at most 65535.
fn isPort(text: []const u8) bool {
    if (text.len < 2 or text.len > 6 or text[0] != ':') return false;
    for (text[1..]) |byte| {
        if (!std.ascii.isDigit(byte)) return false;
    }
    return (std.fmt.parseInt(u32, text[1..], 10) catch return false) <= 65535;
}

/// A range of addresses.
pub const Range = struct {
    network: Address,
    bits: u8,

    pub fn has(self: Range, address: Address) bool {
        return std.mem.eql(u8, &address.masked(self.bits).bytes, &self.network.bytes);
    }

    /// `10.0.0.0/8`, `2001:db8::/32`, or one address. Bits after the prefix are refused: they are mostly mistakes.
    pub fn read(reader: config.Reader, text: []const u8, path: []const u8) error{Refused}!Range {
        const slash = std.mem.findScalar(u8, text, '/');
        const network = Address.parse(text[0 .. slash orelse text.len]) orelse
            return reader.refuse("{s}: '{s}' is not an address, nor a range such as 10.0.0.0/8", .{ path, text });
        const offset: u8 = if (network.isV4()) 96 else 0;
        var bits: u8 = 128;
        if (slash) |at| {
            const digits = text[at + 1 ..];
            const number = std.fmt.parseInt(u8, digits, 10) catch 255;
            if (number > 128 - offset or digits[0] == '+')
                return reader.refuse("{s}: '{s}' has a prefix that is not 0 to {d}", .{ path, text, 128 - offset });
            bits = number + offset;
        }
        const range = Range{ .network = network, .bits = bits };
        if (!range.has(network))
            return reader.refuse("{s}: '{s}' has bits set after its prefix", .{ path, text });
        return range;
    }
};

/// A list of ranges.
pub const Ranges = struct {
    items: []const Range = &.{},

    pub fn has(self: Ranges, address: Address) bool {
        for (self.items) |range| {
            if (range.has(address)) return true;
        }
        return false;
    }

    pub fn read(reader: config.Reader, value: config.Value, path: []const u8) config.Error!Ranges {
        const texts = try reader.asStrings(value, path, path);
        const items = try reader.arena.alloc(Range, texts.len);
        for (items, texts) |*range, text| range.* = try Range.read(reader, text, path);
        return .{ .items = items };
    }
};

/// The address of the client: that of the connection, unless it is one of `proxies`. Then it is the last one in
/// `x-forwarded-for` that is none of them; what stands before that was written by the client itself, and may be a lie.
/// Null if the entry that counts is no address, or if the host does not tell who connected.
pub fn client(proxies: Ranges) ?Address {
    const source = pw.property("source\x00address") orelse return null;
    defer pw.free(source);
    var found = Address.parseWithPort(source) orelse return null;
    if (!proxies.has(found)) return found;

    const fields = pw.request_headers.all();
    defer fields.deinit();
    var lines: [most_lines][]const u8 = undefined;
    var count: usize = 0;
    var cursor = fields;
    while (cursor.next()) |field| {
        if (!std.mem.eql(u8, field[0], "x-forwarded-for")) continue;
        if (count == lines.len) return null;
        lines[count] = field[1];
        count += 1;
    }
    while (count > 0) {
        count -= 1;
        var entries = std.mem.splitBackwardsScalar(u8, lines[count], ',');
        while (entries.next()) |entry| {
            if (std.mem.trim(u8, entry, " \t").len == 0) continue;
            found = Address.parseWithPort(entry) orelse return null;
            if (!proxies.has(found)) return found;
        }
    }
    return found;
}

const most_lines = 16;
