//! Brings text to the form that the rules are written for, so that an attack has one spelling: decoded, in lower case,
//! comments and runs of white space as one space.

const std = @import("std");

pub const Source = enum {
    /// Percent-encoded, with `+` for a space.
    form,
    /// Percent-encoded.
    path,
    /// As it is, but what is percent-encoded is decoded as well: applications decode again.
    text,
};

/// Writes to `output`, which must be as long as `input`; what it says is what came of it.
pub fn normalise(input: []const u8, source: Source, output: []u8) []u8 {
    @memcpy(output, input);
    var text = output;
    const plus = source == .form and std.mem.findScalar(u8, text, '+') != null;
    for (0..3) |round| {
        if ((round == 0 and plus) or std.mem.findScalar(u8, text, '%') != null) text = decode(text, plus and round == 0, output);
    }
    if (std.mem.findAny(u8, text, "&\\") != null) text = entities(text);
    return squeeze(text);
}

/// `%41` and `%u0041`; what is malformed stays. The result is never longer, so `input` may be `output`.
fn decode(input: []const u8, plus: bool, output: []u8) []u8 {
    var length: usize = 0;
    var at: usize = 0;
    while (at < input.len) : (length += 1) {
        var c = input[at];
        var size: usize = 1;
        if (c == '+' and plus) c = ' ';
        if (c == '%') {
            if (hex(input, at + 1, 2)) |value| {
                c = @intCast(value);
                size = 3;
            } else if (at + 1 < input.len and input[at + 1] | 0x20 == 'u') {
                if (hex(input, at + 2, 4)) |value| {
                    c = ascii(value);
                    size = 6;
                }
            }
        }
        output[length] = c;
        at += size;
    }
    return output[0..length];
}

/// Code points as a single byte: ASCII, its full-width forms, and a placeholder for the rest.
fn ascii(code: u32) u8 {
    if (code < 0x80) return @intCast(code);
    if (code >= 0xff01 and code <= 0xff5e) return @intCast(code - 0xff01 + '!');
    return if (code == 0x2215 or code == 0x2044) '/' else 0xff;
}

fn hex(text: []const u8, at: usize, count: usize) ?u32 {
    if (at + count > text.len) return null;
    var value: u32 = 0;
    for (text[at..][0..count]) |c| value = value * 16 + (std.fmt.charToDigit(c, 16) catch return null);
    return value;
}

/// `&lt;`, `&#60;`, `&#x3c;`, and backslash escapes of JavaScript: `\x3c`, `\u003c`.
fn entities(text: []u8) []u8 {
    var length: usize = 0;
    var at: usize = 0;
    while (at < text.len) : (length += 1) {
        var c = text[at];
        var size: usize = 1;
        if (c == '&') {
            if (entity(text[at..])) |found| {
                c = found[0];
                size = found[1];
            }
        } else if (c == '\\' and at + 1 < text.len) {
            const digits: usize = switch (text[at + 1] | 0x20) {
                'x' => 2,
                'u' => 4,
                else => 0,
            };
            if (digits > 0) if (hex(text, at + 2, digits)) |value| {
                c = ascii(value);
                size = 2 + digits;
            };
        }
        text[length] = c;
        at += size;
    }
    return text[0..length];
}

fn entity(text: []const u8) ?struct { u8, usize } {
    const names = [_]struct { []const u8, u8 }{
        .{ "&lt;", '<' },   .{ "&gt;", '>' },    .{ "&quot;", '"' },    .{ "&apos;", '\'' },   .{ "&amp;", '&' },
        .{ "&tab;", '\t' }, .{ "&colon;", ':' }, .{ "&newline;", ' ' }, .{ "&lpar;", '(' }, .{ "&rpar;", ')' },
    };
    for (names) |name| {
        if (std.ascii.startsWithIgnoreCase(text, name[0])) return .{ name[1], name[0].len };
    }
    if (text.len < 4 or text[1] != '#') return null;
    const is_hex = text[2] | 0x20 == 'x';
    var at: usize = if (is_hex) 3 else 2;
    const first = at;
    var code: u32 = 0;
    while (at < text.len and at - first < 7) : (at += 1) {
        const digit = std.fmt.charToDigit(text[at], if (is_hex) 16 else 10) catch break;
        code = code * @as(u32, if (is_hex) 16 else 10) + digit;
    }
    if (at == first) return null;
    if (at < text.len and text[at] == ';') at += 1;
    return .{ ascii(code), at };
}

/// Lower case; white space and comments of SQL as one space, but for `/*!`, which MySQL runs; control characters within
/// words go, as browsers drop them. NUL stays: it is an attack of its own.
fn squeeze(text: []u8) []u8 {
    @setRuntimeSafety(false); // `length` never passes `at`, and that is below text.len
    var length: usize = 0;
    var at: usize = 0;
    var unclosed = false;
    while (at < text.len) {
        const c = text[at];
        if (c == '/' and !unclosed and at + 2 < text.len and text[at + 1] == '*' and text[at + 2] != '!') {
            if (std.mem.findPos(u8, text, at + 2, "*/")) |end| {
                space(text, &length);
                at = end + 2;
                continue;
            }
            // One that is not closed stays: it may be there to cut off the rest. Neither is any behind it.
            unclosed = true;
        }
        at += 1;
        switch (c) {
            ' ', '\t', '\n', '\r', 0x0b, 0x0c => space(text, &length),
            0x01...0x08, 0x0e...0x1f, 0x7f => {},
            else => {
                text[length] = std.ascii.toLower(c);
                length += 1;
            },
        }
    }
    return text[0..length];
}

fn space(text: []u8, length: *usize) void {
    if (length.* > 0 and text[length.* - 1] == ' ') return;
    text[length.*] = ' ';
    length.* += 1;
}
