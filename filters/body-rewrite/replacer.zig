//! Literal search and replace over a stream of bytes: Knuth-Morris-Pratt, with Horspool's skips while nothing matches.
//!
//! The only state between two pieces is how many bytes of the needle the end of the last piece matched. Those bytes
//! need no copy: they are the needle's own beginning. So a stream costs one number per rule, and at most needle - 1
//! bytes are held back. The time is linear in the body, whatever the body holds: a skip only goes forward, and where
//! it stops, Knuth-Morris-Pratt takes over from there.

const std = @import("std");

pub const Rule = struct {
    needle: []const u8,
    replacement: []const u8,
    /// fallback[q]: after q matched bytes and a mismatch, so many of them can still begin a match.
    fallback: []const u32,
    /// skip[b]: by how much a window of the needle's size can move on if its last byte is b; 0 for a candidate.
    skip: *const [256]u16,

    /// `needle` must have 1 to 256 bytes.
    pub fn init(allocator: std.mem.Allocator, needle: []const u8, replacement: []const u8) !Rule {
        const fallback = try allocator.alloc(u32, needle.len);
        fallback[0] = 0;
        var border: u32 = 0; // of needle[0..q]: its longest proper prefix that is also its suffix
        for (1..needle.len) |q| {
            fallback[q] = border;
            while (border > 0 and needle[q] != needle[border]) border = fallback[border];
            if (needle[q] == needle[border]) border += 1;
        }
        const skip = try allocator.create([256]u16);
        skip.* = @splat(@intCast(needle.len));
        for (needle, 1..) |byte, end| skip[byte] = @intCast(needle.len - end);
        return .{ .needle = needle, .replacement = replacement, .fallback = fallback, .skip = skip };
    }

    /// What the next piece of the stream, `input`, comes to. `held` is how many bytes of the needle are held back, 0
    /// before the first piece and after the last (`end`). The result is `input` itself where nothing changes, and
    /// otherwise lies in `output`, which is overwritten.
    pub fn feed(
        rule: *const Rule,
        allocator: std.mem.Allocator,
        held: *u8,
        input: []const u8,
        end: bool,
        output: *std.ArrayList(u8),
    ) error{OutOfMemory}![]const u8 {
        output.clearRetainingCapacity();
        const needle = rule.needle;
        const carried = held.*;
        var matched: u32 = carried;
        var at: usize = 0;
        // Positions count from the first carried byte: what is before `written` is in `output` or was replaced.
        var written: usize = 0;
        while (at < input.len) {
            if (matched == 0) {
                at = rule.next(input, at);
                if (at == input.len) break;
                matched = @intFromBool(input[at] == needle[0]);
                at += 1;
            } else if (input[at] == needle[matched]) {
                matched += 1;
                at += 1;
            } else {
                matched = rule.fallback[matched];
            }
            if (matched == needle.len) {
                if (written == 0) try output.ensureTotalCapacity(allocator, carried + input.len + rule.replacement.len);
                try appendRange(allocator, output, needle[0..carried], input, written, carried + at - matched);
                try output.appendSlice(allocator, rule.replacement);
                written = carried + at;
                matched = 0;
            }
        }
        held.* = if (end) 0 else @intCast(matched);
        if (written == 0 and carried == 0 and held.* == 0) return input;
        try appendRange(allocator, output, needle[0..carried], input, written, carried + input.len - held.*);
        return output.items;
    }

    /// The next place from `start` on where the needle may begin; the end of `input` if there is none.
    fn next(rule: *const Rule, input: []const u8, start: usize) usize {
        // No bounds checks in this loop and the next: they are what an unmatched byte costs. `start` is at most
        // input.len, and every index is kept below it by the loop's own condition.
        @setRuntimeSafety(false);
        const size = rule.needle.len;
        if (size < 4) return find(input, start, rule.needle[0]);
        var at = start;
        while (input.len - at >= size) {
            const skip = rule.skip[input[at + size - 1]];
            if (skip == 0) {
                if (input[at] == rule.needle[0]) return at;
                at += 1;
            }
            at += skip;
        }
        return find(input, at, rule.needle[0]);
    }
};

/// Appends the bytes from `from` to `to` of `first ++ second`.
fn appendRange(
    allocator: std.mem.Allocator,
    output: *std.ArrayList(u8),
    first: []const u8,
    second: []const u8,
    from: usize,
    to: usize,
) error{OutOfMemory}!void {
    if (from == to) return;
    if (from < first.len) try output.appendSlice(allocator, first[from..@min(to, first.len)]);
    if (to > first.len) try output.appendSlice(allocator, second[@max(from, first.len) - first.len .. to - first.len]);
}

/// The next `byte` in `input` from `start` on; the end of `input` if there is none. Eight bytes a step, in plain 64-bit
/// arithmetic, so that hosts without SIMD load the filter too.
fn find(input: []const u8, start: usize, byte: u8) usize {
    @setRuntimeSafety(false);
    const ones: u64 = 0x0101010101010101;
    const wanted = ones * byte;
    var at = start;
    while (input.len - at >= 8) : (at += 8) {
        const different = std.mem.readInt(u64, input[at..][0..8], .little) ^ wanted;
        // The lowest set bit marks the lowest zero byte; bits above it may be borrows.
        const zeros = (different -% ones) & ~different & (ones << 7);
        if (zeros != 0) return at + @ctz(zeros) / 8;
    }
    while (at < input.len and input[at] != byte) at += 1;
    return at;
}
