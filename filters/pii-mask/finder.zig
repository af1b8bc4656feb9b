//! Finds e-mail addresses, card numbers and telephone numbers in a token: a run of the characters that these consist of.

const std = @import("std");

pub const Kind = enum { email, card, phone };

pub const Match = struct { kind: Kind, start: usize, end: usize };

/// Classes of bytes, as bits.
pub const class = struct {
    /// Can be part of a token.
    pub const token: u8 = 1;
    pub const at: u8 = 2;
    pub const digit: u8 = 4;
    /// A letter or a digit.
    pub const word: u8 = 8;
    /// A quote or a backslash, which mean something in JSON.
    pub const json: u8 = 16;
    /// Of the part of an address before the @.
    pub const local: u8 = 32;
    /// Between the groups of a telephone number.
    pub const separator: u8 = 64;
};

pub const classes: [256]u8 = table: {
    var result: [256]u8 = @splat(0);
    for (0..256) |c| {
        if (std.ascii.isAlphanumeric(c)) result[c] = class.token | class.word | class.local;
        if (std.ascii.isDigit(c)) result[c] |= class.digit;
    }
    for ("._%+-'()@") |c| result[c] = class.token;
    for ("._%+-'") |c| result[c] |= class.local;
    for (" -.()") |c| result[c] |= class.separator;
    result['@'] |= class.at;
    result['"'] = class.json;
    result['\\'] = class.json;
    break :table result;
};

/// The matches of a token, from left to right, none within another. Of those at the same place an address comes first.
pub const Matches = struct {
    text: []const u8,
    from: usize = 0,
    /// Of each kind the next one, as far as it is known; `text.len` as its start if there is none.
    ahead: std.EnumArray(Kind, ?Match),

    pub fn init(text: []const u8, flags: u8, digits: usize) Matches {
        var result = Matches{ .text = text, .ahead = .initFill(null) };
        if (flags & class.at == 0) result.exclude(.email);
        if (digits < 13) result.exclude(.card);
        if (digits < 8) result.exclude(.phone);
        return result;
    }

    pub fn exclude(self: *Matches, kind: Kind) void {
        self.ahead.set(kind, .{ .kind = kind, .start = self.text.len, .end = self.text.len });
    }

    pub fn next(self: *Matches) ?Match {
        var first: ?Match = null;
        for (std.enums.values(Kind)) |kind| {
            const known = self.ahead.get(kind);
            if (known == null or known.?.start < self.from) {
                const found = switch (kind) {
                    .email => email(self.text, self.from),
                    .card => card(self.text, self.from),
                    .phone => phone(self.text, self.from),
                };
                if (found) |match| self.ahead.set(kind, match) else self.exclude(kind);
            }
            const candidate = self.ahead.get(kind).?;
            if (candidate.start < self.text.len and (first == null or candidate.start < first.?.start)) first = candidate;
        }
        if (first) |match| self.from = match.end;
        return first;
    }
};

// ---- e-mail ----

/// local@domain, with a dot in the domain and letters after the last one. The local part of an address may have more
/// characters (RFC 5322); addresses that people have do not.
fn email(text: []const u8, from: usize) ?Match {
    var search = from;
    while (std.mem.findScalarPos(u8, text, search, '@')) |at| : (search = at + 1) {
        var start = at;
        while (start > from and is(text[start - 1], class.local)) start -= 1;
        while (start < at and (text[start] == '.' or text[start] == '\'')) start += 1;
        var end = at + 1;
        while (end < text.len and (is(text[end], class.word) or text[end] == '-' or text[end] == '.')) end += 1;
        while (end > at + 1 and (text[end - 1] == '.' or text[end - 1] == '-')) end -= 1;
        const domain = text[at + 1 .. end];
        const dot = std.mem.findScalarLast(u8, domain, '.') orelse continue;
        if (std.mem.find(u8, domain, "..") != null) continue;
        if (start == at or dot == 0 or domain.len - dot < 3 or domain.len > 253 or at - start > 64) continue;
        for (domain[dot + 1 ..]) |c| {
            if (!std.ascii.isAlphabetic(c)) break;
        } else return .{ .kind = .email, .start = start, .end = end };
    }
    return null;
}

fn is(c: u8, wanted: u8) bool {
    return classes[c] & wanted != 0;
}

// ---- card numbers ----

/// 13 to 19 digits of a known beginning that pass Luhn's check (ISO/IEC 7812), in groups with one space or dash between
/// them. They begin and end where a group does, so that no part of a longer number counts.
fn card(text: []const u8, from: usize) ?Match {
    var start = from;
    while (start < text.len) : (start += 1) {
        if (text[start] < '2' or text[start] > '6') continue;
        if (start > 0 and (is(text[start - 1], class.word) or text[start - 1] == '_')) continue;
        if (text.len - start < 13) break;
        var digits: [19]u8 = undefined;
        var count: usize = 0;
        var end: ?usize = null;
        var at = start;
        while (at < text.len) : (at += 1) {
            const c = text[at];
            if (is(c, class.digit)) {
                if (count == digits.len) break;
                digits[count] = c - '0';
                count += 1;
                const next: u8 = if (at + 1 < text.len) text[at + 1] else 0;
                const is_end = !is(next, class.word) and next != '_';
                if (is_end and count >= 13 and isIssued(digits[0..count]) and luhn(digits[0..count])) end = at + 1;
            } else if ((c == ' ' or c == '-') and is(text[at - 1], class.digit)) {
                continue;
            } else break;
        }
        if (end) |found| return .{ .kind = .card, .start = start, .end = found };
    }
    return null;
}

/// Beginnings and lengths that payment networks have given out: Visa, Mastercard, American Express, Discover, Diners, JCB,
/// UnionPay, Maestro.
fn isIssued(digits: []const u8) bool {
    const two = digits[0] * 10 + digits[1];
    const four = @as(u32, two) * 100 + digits[2] * 10 + digits[3];
    return switch (digits[0]) {
        4 => digits.len == 13 or digits.len == 16 or digits.len == 19,
        2 => digits.len == 16 and four >= 2221 and four <= 2720,
        3 => switch (two) {
            34, 37 => digits.len == 15,
            35 => digits.len >= 16 and four >= 3528 and four <= 3589,
            36, 38, 39 => digits.len >= 14,
            30 => digits.len >= 14 and (four <= 3059 or four / 10 == 309),
            else => false,
        },
        5 => if (two >= 51 and two <= 55) digits.len == 16 else digits.len >= 13,
        6 => digits.len >= 13,
        else => false,
    };
}

fn luhn(digits: []const u8) bool {
    var sum: u32 = 0;
    for (digits, 0..) |digit, index| {
        const doubled = (digits.len - index) % 2 == 0;
        const value = if (doubled) 2 * digit else digit;
        sum += if (value > 9) value - 9 else value;
    }
    return sum % 10 == 0;
}

// ---- telephone numbers ----

/// `+` and 8 to 15 digits, with single separators and brackets; or, without a `+`, ten digits written as (555) 123-4567,
/// 555-123-4567, 555.123.4567 or 555 123 4567. Bare digits are no telephone number: too many other things are.
fn phone(text: []const u8, from: usize) ?Match {
    var at = from;
    while (at < text.len) : (at += 1) {
        const before: u8 = if (at > 0) text[at - 1] else 0;
        if (is(before, class.word) or before == '_' or before == '.' or before == '-') continue;
        const end = switch (text[at]) {
            '+' => international(text, at),
            '(', '0'...'9' => national(text, at),
            else => null,
        } orelse continue;
        const next: u8 = if (end < text.len) text[end] else 0;
        if (is(next, class.word) or next == '_') continue;
        return .{ .kind = .phone, .start = at, .end = end };
    }
    return null;
}

/// The end of the digits; if there are too many, because another number follows, the last group's that makes 12 or fewer.
fn international(text: []const u8, start: usize) ?usize {
    var digits: usize = 0;
    var end: usize = start + 1;
    var likely: ?usize = null;
    var at = start + 1;
    while (at < text.len and digits <= 15) : (at += 1) {
        const c = text[at];
        if (is(c, class.digit)) {
            digits += 1;
            end = at + 1;
        } else {
            if (end == at and digits >= 8 and digits <= 12) likely = at;
            if (!is(c, class.separator) or at - end > 1) break;
        }
    }
    if (digits > 15) return likely;
    return if (digits >= 8) end else null;
}

fn national(text: []const u8, start: usize) ?usize {
    var at = start;
    const bracket = text[at] == '(';
    if (bracket) at += 1;
    at = group(text, at, 3) orelse return null;
    if (bracket) {
        if (at >= text.len or text[at] != ')') return null;
        at += 1;
        if (at < text.len and text[at] == ' ') at += 1;
    } else {
        at = separator(text, at) orelse return null;
    }
    at = group(text, at, 3) orelse return null;
    const between = at;
    at = separator(text, at) orelse return null;
    if (!bracket and text[between] != text[start + 3]) return null;
    return group(text, at, 4);
}

fn group(text: []const u8, start: usize, count: usize) ?usize {
    if (text.len < start + count) return null;
    for (text[start..][0..count]) |c| {
        if (!is(c, class.digit)) return null;
    }
    return start + count;
}

fn separator(text: []const u8, at: usize) ?usize {
    return if (at < text.len and (text[at] == ' ' or text[at] == '-' or text[at] == '.')) at + 1 else null;
}
