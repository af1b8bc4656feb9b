//! Masks a body while it streams through, whatever the borders of its pieces.
//!
//! The body is cut into tokens: runs of the characters that addresses and numbers consist of, with a single space where
//! digits are on both sides. Only a token at the end of a piece has to wait for the next one, and only as much of it as a
//! match could be: one that is longer than `longest_token` is let through as it is.

const std = @import("std");
const pw = @import("proxy_wasm");
const finder = @import("finder.zig");

const class = finder.class;
pub const Kind = finder.Kind;

pub const longest_token = 400;
/// After a backslash, before the character that says which escape it is: `u` has four more, the others none.
const escape_begun = 5;
/// Digits in groups with spaces between them make one token up to here, then another begins.
const most_joined_digits = 38;

/// What stands in the place of each kind; null for one that stays. `{last4}` and `{domain}` are filled in.
pub const Replacements = std.EnumArray(Kind, ?[]const u8);

/// What one body is in the middle of.
pub const Progress = struct {
    replacements: *const Replacements,
    json: bool,
    held: [longest_token]u8 = undefined,
    held_length: usize = 0,
    /// Inside a token that is too long.
    overlong: bool = false,
    in_string: bool = false,
    /// So many bytes of an escape are still to come.
    escape: u8 = 0,
};

pub const Counts = std.EnumArray(Kind, u32);

/// What the next piece comes to: `input` itself if nothing changes, else `output`, which is overwritten. `joined` is
/// working memory. Adds to `counts` what was masked.
pub fn feed(
    progress: *Progress,
    input: []const u8,
    end: bool,
    joined: *std.ArrayList(u8),
    output: *std.ArrayList(u8),
    counts: *Counts,
) error{OutOfMemory}![]const u8 {
    output.clearRetainingCapacity();
    var text = input;
    const carried = progress.held_length;
    if (carried > 0) {
        joined.clearRetainingCapacity();
        try joined.ensureTotalCapacity(pw.allocator, carried + input.len);
        joined.appendSliceAssumeCapacity(progress.held[0..carried]);
        joined.appendSliceAssumeCapacity(input);
        text = joined.items;
        progress.held_length = 0;
    }
    var scanner = Scanner{ .progress = progress, .text = text, .output = output, .counts = counts };
    const rest = try scanner.run(end);
    if (scanner.copied == 0 and carried == 0 and rest == text.len and output.items.len == 0) return input;
    try append(output, text[scanner.copied..rest]);
    return output.items;
}

/// One piece on its way through.
const Scanner = struct {
    progress: *Progress,
    text: []const u8,
    output: *std.ArrayList(u8),
    counts: *Counts,
    /// What is before it is in `output`.
    copied: usize = 0,
    /// No token begins before it.
    floor: usize = 0,

    /// Returns up to where the text can go on; the rest is held back.
    fn run(self: *Scanner, end: bool) error{OutOfMemory}!usize {
        const progress = self.progress;
        const text = self.text;
        self.pickUp();
        var at = self.floor;
        while (true) {
            at = next(text, at, if (progress.json) class.at | class.digit | class.json else class.at | class.digit);
            if (at == text.len) break;
            if (finder.classes[text[at]] & class.json != 0) {
                at = self.punctuation(at);
                self.floor = at;
                continue;
            }
            const start = self.beginning(at);
            const token = scan(text, start);
            at = start + token.length;
            if (at == text.len and !end) return self.hold(start);
            if (token.length <= longest_token and (token.flags & class.at != 0 or token.digits >= 8)) try self.mask(start, token);
            self.floor = at;
        }
        return if (end) text.len else self.hold(self.beginning(text.len));
    }

    /// What the piece before was in the middle of: an escape, or a token that is too long.
    fn pickUp(self: *Scanner) void {
        const progress = self.progress;
        while (progress.escape > 0 and self.floor < self.text.len) : (self.floor += 1) {
            progress.escape = if (progress.escape != escape_begun) progress.escape - 1 else if (self.text[self.floor] == 'u') 4 else 0;
        }
        if (!progress.overlong) return;
        while (self.floor < self.text.len and finder.classes[self.text[self.floor]] & class.token != 0) self.floor += 1;
        progress.overlong = self.floor == self.text.len;
    }

    /// A quote or a backslash of JSON; returns what is behind it, and behind the escape.
    fn punctuation(self: *Scanner, at: usize) usize {
        const progress = self.progress;
        if (self.text[at] == '"') progress.in_string = !progress.in_string;
        if (self.text[at] == '"' or !progress.in_string) return at + 1;
        if (at + 1 == self.text.len) {
            progress.escape = escape_begun;
            return at + 1;
        }
        const behind = at + 2 + @as(usize, if (self.text[at + 1] == 'u') 4 else 0);
        progress.escape = @intCast(behind -| self.text.len);
        return @min(behind, self.text.len);
    }

    /// Where the token begins that goes on up to `at`.
    fn beginning(self: *const Scanner, at: usize) usize {
        var start = at;
        while (start > self.floor and finder.classes[self.text[start - 1]] & class.token != 0) start -= 1;
        return start;
    }

    fn hold(self: *Scanner, start: usize) usize {
        const token = self.text[start..];
        if (token.len > longest_token or self.progress.overlong) {
            self.progress.overlong = true;
            return self.text.len;
        }
        @memcpy(self.progress.held[0..token.len], token);
        self.progress.held_length = token.len;
        return start;
    }

    /// Writes what stands before each match of the token, and its replacement.
    fn mask(self: *Scanner, start: usize, token: Token) error{OutOfMemory}!void {
        const within = self.text[start..][0..token.length];
        // Outside of strings JSON has numbers only: no telephone number is one, and a part of one is not masked.
        const bare = self.progress.json and !self.progress.in_string;
        var matches: finder.Matches = .init(within, token.flags, token.digits);
        for (std.enums.values(Kind)) |kind| {
            if (self.progress.replacements.get(kind) == null or (bare and kind == .phone)) matches.exclude(kind);
        }
        while (matches.next()) |match| {
            if (bare and match.end - match.start != within.len) continue;
            try append(self.output, self.text[self.copied .. start + match.start]);
            if (bare) try append(self.output, "\"");
            try fill(self.output, self.progress.replacements.get(match.kind).?, within[match.start..match.end]);
            if (bare) try append(self.output, "\"");
            self.counts.getPtr(match.kind).* += 1;
            self.copied = start + match.end;
        }
    }
};

/// The next byte of one of these classes from `start` on; the end of `text` if there is none.
fn next(text: []const u8, start: usize, wanted: u8) usize {
    @setRuntimeSafety(false); // `at` is below text.len wherever it is used, by the loops' own conditions
    var at = start;
    while (text.len - at >= 4) : (at += 4) {
        const any = finder.classes[text[at]] | finder.classes[text[at + 1]] | finder.classes[text[at + 2]] | finder.classes[text[at + 3]];
        if (any & wanted != 0) break;
    }
    while (at < text.len and finder.classes[text[at]] & wanted == 0) at += 1;
    return at;
}

const Token = struct { length: usize, flags: u8, digits: usize };

fn scan(text: []const u8, start: usize) Token {
    @setRuntimeSafety(false); // as above
    var at = start;
    var flags: u8 = 0;
    var digits: usize = 0;
    while (at < text.len) {
        const found = finder.classes[text[at]];
        if (found & class.token != 0) {
            flags |= found;
            digits += (found & class.digit) >> 2;
            at += 1;
        } else if (text[at] == ' ' and at > start and digits < most_joined_digits and joins(text[at - 1]) and
            (at + 1 == text.len or joins(text[at + 1]) or text[at + 1] == '('))
        {
            at += 1;
        } else break;
    }
    return .{ .length = at - start, .flags = flags, .digits = digits };
}

fn joins(c: u8) bool {
    return std.ascii.isDigit(c) or c == ')';
}

fn fill(output: *std.ArrayList(u8), template: []const u8, found: []const u8) error{OutOfMemory}!void {
    var rest = template;
    while (std.mem.findScalar(u8, rest, '{')) |open| {
        try append(output, rest[0..open]);
        rest = rest[open..];
        if (std.mem.startsWith(u8, rest, "{domain}")) {
            const at = std.mem.findScalar(u8, found, '@') orelse found.len - 1;
            try append(output, found[at + 1 ..]);
            rest = rest["{domain}".len..];
        } else if (std.mem.startsWith(u8, rest, "{last4}")) {
            var digits: [4]u8 = undefined;
            var count: usize = 0;
            var index = found.len;
            while (index > 0 and count < digits.len) {
                index -= 1;
                if (!std.ascii.isDigit(found[index])) continue;
                count += 1;
                digits[digits.len - count] = found[index];
            }
            try append(output, digits[digits.len - count ..]);
            rest = rest["{last4}".len..];
        } else {
            try append(output, "{");
            rest = rest[1..];
        }
    }
    try append(output, rest);
}

fn append(output: *std.ArrayList(u8), bytes: []const u8) error{OutOfMemory}!void {
    try output.appendSlice(pw.allocator, bytes);
}
