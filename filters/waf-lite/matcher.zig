//! Finds the rules' patterns in a text, all at once: by the first byte that a pattern can begin with.

const std = @import("std");
const rules = @import("rules.zig");

const longest_gap = 16;
/// How far before an attribute its tag, or the quote that it breaks out of, is looked for.
const longest_tag = 60;

const Op = union(enum) { byte: u8, word_start, word_end, separators, space, quote, digits, letters, gap, comparison, behind, in_tag, end };

/// `key` and `mask`: what of the first four bytes is known, little end first. One comparison drops most patterns.
const Pattern = struct { rule: u8, ops: []const Op, key: u32, mask: u32 };

pub const Found = std.bit_set.IntegerBitSet(rules.all.len);

const patterns: []const Pattern = build: {
    @setEvalBranchQuota(200_000);
    var list: []const Pattern = &.{};
    for (rules.all, 0..) |rule, index| {
        for (rule.patterns) |text| list = list ++ &[1]Pattern{known(index, compile(text))};
    }
    break :build list;
};

fn known(comptime rule: u8, comptime ops: []const Op) Pattern {
    var key: u32 = 0;
    var mask: u32 = 0;
    var at: u5 = 0;
    for (ops) |op| {
        if (op == .word_start) continue;
        switch (op) {
            .byte => |c| {
                key |= @as(u32, c) << at;
                mask |= @as(u32, 0xff) << at;
            },
            .quote => {}, // one byte, any
            else => break,
        }
        if (at == 24) break;
        at += 8;
    }
    return .{ .rule = rule, .ops = ops, .key = key, .mask = mask };
}

/// For each byte the patterns that can begin with it.
const starts: [256][]const u16 = build: {
    @setEvalBranchQuota(2_000_000);
    var table: [256][]const u16 = @splat(&.{});
    for (patterns, 0..) |pattern, index| {
        const first = if (pattern.ops[0] == .word_start) pattern.ops[1] else pattern.ops[0];
        switch (first) {
            .byte => |c| table[c] = table[c] ++ &[1]u16{index},
            .quote => for ("'\"`") |c| {
                table[c] = table[c] ++ &[1]u16{index};
            },
            .digits => for ("0123456789") |c| {
                table[c] = table[c] ++ &[1]u16{index};
            },
            else => @compileError("a pattern must begin with a character, a quote or digits"),
        }
    }
    break :build table;
};

/// For each first byte the second ones that some pattern can go on with: most places of a text end here.
const seconds: [256][256]bool = build: {
    @setEvalBranchQuota(5_000_000);
    var table: [256][256]bool = @splat(@splat(false));
    for (0..256) |first| {
        for (starts[first]) |index| {
            const all = patterns[index].ops;
            const ops = if (all[0] == .word_start) all[1..] else all;
            if (ops.len == 1) {
                table[first] = @splat(true);
                continue;
            }
            for (0..256) |c| {
                // Digits can go on, and a space can be left out.
                const more = (ops[0] == .digits and std.ascii.isDigit(c)) or (ops[1] == .space and (c == ' ' or ops.len == 2 or canBegin(ops[2], c)));
                if (more or (ops[1] != .space and canBegin(ops[1], c))) table[first][c] = true;
            }
        }
    }
    break :build table;
};

fn compile(comptime text: []const u8) []const Op {
    var ops: []const Op = &.{};
    var at: usize = 0;
    while (at < text.len) : (at += 1) {
        if (std.mem.eql(u8, text[at..], "end")) {
            ops = ops ++ &[1]Op{.end};
            break;
        }
        if (text[at] == '\\' and at + 1 < text.len and std.mem.findScalar(u8, "^$~_?#%*=!\\", text[at + 1]) != null) {
            at += 1;
            ops = ops ++ &[1]Op{.{ .byte = text[at] }};
            continue;
        }
        ops = ops ++ &[1]Op{switch (text[at]) {
            '^' => .word_start,
            '$' => if (at + 1 == text.len) .word_end else .{ .byte = '$' },
            '~' => .separators,
            '_' => if (at > 0 and std.ascii.isAlphanumeric(text[at - 1]) and at + 1 < text.len and std.ascii.isAlphanumeric(text[at + 1])) .{ .byte = '_' } else .space,
            '?' => .quote,
            '#' => .digits,
            '%' => .letters,
            '*' => .gap,
            '=' => .comparison,
            '!' => .behind,
            '\t' => .in_tag,
            else => |c| .{ .byte = c },
        }};
    }
    return ops;
}

/// How many comparisons may still be begun in this callback. Text that is made of nothing but beginnings of attacks would
/// take more than a callback has; see waf_lite.zig.
pub var left: u32 = 0;

/// Adds the rules that match somewhere in `text`.
pub fn find(text: []const u8, found: *Found) void {
    @setRuntimeSafety(false); // every index is compared with text.len before; here is where all the time goes
    for (text, 0..) |c, at| {
        if (starts[c].len == 0) continue;
        if (at + 1 < text.len and !seconds[c][text[at + 1]]) continue;
        var word: u32 = 0;
        if (text.len - at >= 4) {
            word = std.mem.readInt(u32, text[at..][0..4], .little);
        } else for (text[at..], 0..) |one, index| {
            word |= @as(u32, one) << @intCast(8 * index);
        }
        for (starts[c]) |index| {
            const candidate = &patterns[index];
            if (word & candidate.mask != candidate.key) continue;
            if (!found.isSet(candidate.rule) and matches(candidate.ops, text, at)) found.set(candidate.rule);
        }
    }
}

/// Whether a match of this can begin with that byte.
fn canBegin(op: Op, c: u8) bool {
    return switch (op) {
        .byte => |byte| c == byte,
        .separators => isSeparator(c),
        .quote => isQuote(c),
        .digits => std.ascii.isDigit(c),
        .letters => std.ascii.isLower(c),
        .comparison => c == '=' or c == '<' or c == '>' or c == 'l',
        else => true,
    };
}

fn matches(ops: []const Op, text: []const u8, start: usize) bool {
    @setRuntimeSafety(false); // as above
    if (left == 0) return false;
    left -= 1;
    var at = start;
    for (ops, 0..) |op, index| switch (op) {
        .byte => |c| {
            if (at == text.len or text[at] != c) return false;
            at += 1;
        },
        .word_start => if (at > 0 and isWord(text[at - 1])) return false,
        .word_end => if (at < text.len and isWord(text[at])) return false,
        .separators => {
            const before = at;
            while (at < text.len and isSeparator(text[at])) at += 1;
            if (at == before) return false;
        },
        .space => if (at < text.len and text[at] == ' ') {
            at += 1;
        },
        .quote => {
            if (at == text.len or !isQuote(text[at])) return false;
            at += 1;
        },
        .digits => {
            const before = at;
            while (at < text.len and std.ascii.isDigit(text[at])) at += 1;
            if (at == before) return false;
        },
        .letters => {
            const before = at;
            while (at < text.len and std.ascii.isLower(text[at])) at += 1;
            if (at - before < 3) return false;
        },
        .comparison => {
            if (at == text.len) return false;
            if (text[at] == '=' or text[at] == '<' or text[at] == '>') at += 1 else if (std.mem.startsWith(u8, text[at..], "like")) at += 4 else return false;
        },
        .behind => if (at == text.len or text[at] == ' ') return false,
        .in_tag => if (std.mem.findAny(u8, text[start -| longest_tag..start], "<'\"`") == null) return false,
        .end => if (std.mem.trimEnd(u8, text[at..], " ").len > 0) return false,
        .gap => {
            const last = @min(at + longest_gap, text.len);
            const next = index + 1;
            while (at <= last) : (at += 1) {
                if (next < ops.len and (at == text.len or !canBegin(ops[next], text[at]))) continue;
                if (matches(ops[next..], text, at)) return true;
            }
            return false;
        },
    };
    return true;
}

fn isWord(c: u8) bool {
    return std.ascii.isAlphanumeric(c) or c == '_';
}

fn isQuote(c: u8) bool {
    return c == '\'' or c == '"' or c == '`';
}

fn isSeparator(c: u8) bool {
    return c == ' ' or c == '(' or c == ')' or c == '+' or isQuote(c);
}
