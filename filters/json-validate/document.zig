//! A strict JSON parser (RFC 8259) for documents from outside: a fifth of what std.json costs in fuel, which decides how
//! long a body may be. Texts stay where they are in the source unless they have escapes.

const std = @import("std");

const Value = std.json.Value;

pub const Error = error{ OutOfMemory, Malformed, Duplicate, TooDeep };

pub const Parser = struct {
    arena: std.mem.Allocator,
    source: []const u8,
    most_depth: usize,
    /// Where it is; where the problem is after an error.
    at: usize = 0,
    depth: usize = 0,
    /// Items of the arrays and objects that are open.
    items: std.ArrayList(Value) = .empty,
    keys: std.ArrayList([]const u8) = .empty,

    pub fn parse(self: *Parser) Error!Value {
        const result = try self.value();
        self.space();
        return if (self.at < self.source.len) error.Malformed else result;
    }

    fn peek(self: *const Parser) u8 {
        @setRuntimeSafety(false); // the condition is the check
        return if (self.at < self.source.len) self.source[self.at] else 0;
    }

    fn space(self: *Parser) void {
        while (true) switch (self.peek()) {
            ' ', '\n', '\r', '\t' => self.at += 1,
            else => return,
        };
    }

    fn value(self: *Parser) Error!Value {
        self.space();
        switch (self.peek()) {
            '"' => return .{ .string = try self.string() },
            '{' => return self.object(),
            '[' => return self.array(),
            '-', '0'...'9' => return self.number(),
            't' => return self.word("true", .{ .bool = true }),
            'f' => return self.word("false", .{ .bool = false }),
            'n' => return self.word("null", .null),
            else => return error.Malformed,
        }
    }

    fn word(self: *Parser, text: []const u8, meaning: Value) Error!Value {
        if (!std.mem.startsWith(u8, self.source[self.at..], text)) return error.Malformed;
        self.at += text.len;
        return meaning;
    }

    fn open(self: *Parser) Error!void {
        self.at += 1;
        self.depth += 1;
        if (self.depth > self.most_depth) return error.TooDeep;
        self.space();
    }

    /// After an item: true if another one follows, false at the end.
    fn more(self: *Parser, end: u8) Error!bool {
        self.space();
        const found = self.peek();
        if (found != ',' and found != end) return error.Malformed;
        self.at += 1;
        if (found == end) self.depth -= 1;
        return found == ',';
    }

    fn array(self: *Parser) Error!Value {
        const start = self.items.items.len;
        try self.open();
        if (self.peek() == ']') {
            _ = try self.more(']');
        } else while (true) {
            const item = try self.value();
            try self.items.append(self.arena, item);
            if (!try self.more(']')) break;
        }
        const found = try self.arena.dupe(Value, self.items.items[start..]);
        self.items.shrinkRetainingCapacity(start);
        return .{ .array = .fromOwnedSlice(self.arena, found) };
    }

    fn object(self: *Parser) Error!Value {
        const start = self.items.items.len;
        const first_key = self.keys.items.len;
        try self.open();
        if (self.peek() == '}') {
            _ = try self.more('}');
        } else while (true) {
            self.space();
            if (self.peek() != '"') return error.Malformed;
            const key = try self.string();
            try self.keys.append(self.arena, key);
            self.space();
            if (self.peek() != ':') return error.Malformed;
            self.at += 1;
            const item = try self.value();
            try self.items.append(self.arena, item);
            if (!try self.more('}')) break;
        }
        var map: std.json.ObjectMap = .empty;
        const names = self.keys.items[first_key..];
        try map.ensureTotalCapacity(self.arena, names.len);
        for (names, self.items.items[start..]) |name, item| {
            const entry = map.getOrPutAssumeCapacity(name);
            if (entry.found_existing) return error.Duplicate;
            entry.value_ptr.* = item;
        }
        self.items.shrinkRetainingCapacity(start);
        self.keys.shrinkRetainingCapacity(first_key);
        return .{ .object = map };
    }

    fn number(self: *Parser) Error!Value {
        const start = self.at;
        const negative = self.peek() == '-';
        if (negative) self.at += 1;
        var whole: i64 = 0;
        const first = self.at;
        const length = self.digits(&whole);
        if (length == 0 or (length > 1 and self.source[first] == '0')) return error.Malformed;
        var plain = length <= 18;
        var ignored: i64 = 0;
        if (self.peek() == '.') {
            plain = false;
            self.at += 1;
            if (self.digits(&ignored) == 0) return error.Malformed;
        }
        if (self.peek() | 0x20 == 'e') {
            plain = false;
            self.at += 1;
            if (self.peek() == '+' or self.peek() == '-') self.at += 1;
            if (self.digits(&ignored) == 0) return error.Malformed;
        }
        if (plain) return .{ .integer = if (negative) -whole else whole };
        const text = self.source[start..self.at];
        // A number of a hundred digits is no more precise than one of twenty.
        return .{ .float = std.fmt.parseFloat(f64, text[0..@min(text.len, 400)]) catch return error.Malformed };
    }

    fn digits(self: *Parser, result: *i64) usize {
        const start = self.at;
        while (true) : (self.at += 1) {
            const c = self.peek();
            if (c < '0' or c > '9') return self.at - start;
            if (self.at - start < 18) result.* = result.* * 10 + (c - '0');
        }
    }

    fn string(self: *Parser) Error![]const u8 {
        self.at += 1;
        const start = self.at;
        var high: u8 = 0;
        while (true) {
            const c = self.peek();
            if (c == '"' or c == '\\' or c < 0x20) break;
            high |= c;
            self.at += 1;
        }
        var text = self.source[start..self.at];
        if (self.peek() == '\\') text = try self.escaped(text, &high);
        if (self.peek() != '"') return error.Malformed;
        self.at += 1;
        if (high & 0x80 != 0 and !std.unicode.utf8ValidateSlice(text)) return error.Malformed;
        return text;
    }

    /// A string that has escapes, from the first one on.
    fn escaped(self: *Parser, begun: []const u8, high: *u8) Error![]const u8 {
        var out: std.ArrayList(u8) = .empty;
        try out.appendSlice(self.arena, begun);
        while (true) {
            const c = self.peek();
            if (c == '"') return out.items;
            if (c < 0x20) return error.Malformed;
            self.at += 1;
            if (c != '\\') {
                high.* |= c;
                try out.append(self.arena, c);
                continue;
            }
            const kind = self.peek();
            self.at += 1;
            try out.append(self.arena, switch (kind) {
                '"', '\\', '/' => kind,
                'b' => 0x08,
                'f' => 0x0c,
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    var encoded: [4]u8 = undefined;
                    const length = std.unicode.utf8Encode(try self.codePoint(), &encoded) catch return error.Malformed;
                    try out.appendSlice(self.arena, encoded[0..length]);
                    continue;
                },
                else => return error.Malformed,
            });
        }
    }

    /// What follows `\u`; two of them for a code point beyond the basic plane.
    fn codePoint(self: *Parser) Error!u21 {
        const first = try self.hex4();
        if (first < 0xd800 or first >= 0xe000) return first;
        if (first >= 0xdc00 or !std.mem.startsWith(u8, self.source[self.at..], "\\u")) return error.Malformed;
        self.at += 2;
        const second = try self.hex4();
        if (second < 0xdc00 or second >= 0xe000) return error.Malformed;
        return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    }

    fn hex4(self: *Parser) Error!u21 {
        var code: u21 = 0;
        for (0..4) |_| {
            const digit = std.fmt.charToDigit(self.peek(), 16) catch return error.Malformed;
            code = code * 16 + digit;
            self.at += 1;
        }
        return code;
    }
};
