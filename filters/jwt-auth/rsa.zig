//! RS256: RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 section 8.2.2), verification only.
//!
//! Zig's std.crypto needs 20 million units of fuel for a signature by 2048 bits, four times what a callback has by
//! default; this needs 1.7 million. Nothing here is secret, so nothing takes care to take the same time.

const std = @import("std");
const Sha256 = std.crypto.hash.sha2.Sha256;

pub const most_bits = 4096;
/// Bits of a limb: so few that a whole column of products fits into 64 bits, and carries can wait until it is added up.
const radix = 26;
const mask = (1 << radix) - 1;
const lanes = 4;
const Lanes = @Vector(lanes, u64);
const most_limbs = (std.math.divCeil(usize, most_bits + 1, radix * lanes) catch unreachable) * lanes;
const Limbs = [most_limbs]u64;

pub const Key = struct {
    bytes: usize,
    /// A multiple of `lanes`, with room for one bit more than the modulus has.
    limbs: usize,
    modulus: Limbs,
    exponent: u32,
    /// -1 / modulus modulo 2^26.
    negated_inverse: u64,
    /// R^2 modulo the modulus, R = 2^(26 * limbs): brings a number into Montgomery's form. Made when first needed.
    square: ?Limbs = null,

    /// Modulus and exponent as big-endian bytes without leading zeros (RFC 7518 section 6.3.1); null for a key that is
    /// too short (2048 bits), too long, or none.
    pub fn init(modulus: []const u8, exponent: []const u8) ?Key {
        if (modulus.len < 256 or modulus.len > most_bits / 8 or modulus[0] < 0x80) return null;
        if (exponent.len == 0 or exponent.len > 3 or exponent[0] == 0) return null;
        var key = Key{
            .bytes = modulus.len,
            .limbs = (8 * modulus.len + radix * lanes) / (radix * lanes) * lanes,
            .modulus = load(modulus),
            .exponent = std.mem.readVarInt(u32, exponent, .big),
            .negated_inverse = 0,
        };
        if (key.exponent < 3 or key.exponent > 65537 or key.exponent % 2 == 0 or key.modulus[0] % 2 == 0) return null;
        // Newton: each step doubles the number of right bits.
        var inverse: u64 = 1;
        for (0..5) |_| inverse *%= 2 -% key.modulus[0] *% inverse;
        key.negated_inverse = (0 -% inverse) & mask;
        return key;
    }

    pub fn verify(self: *Key, message: []const u8, signature: []const u8) bool {
        if (signature.len != self.bytes) return false;
        const number = load(signature);
        if (!self.exceeds(&number)) return false;

        if (self.square == null) self.square = self.makeSquare();
        var base: Limbs = undefined;
        self.multiply(&base, &number, &self.square.?);
        var power = base;
        var bit: u5 = @intCast(31 - @clz(self.exponent));
        while (bit > 0) {
            bit -= 1;
            self.multiply(&power, &power, &power);
            if ((self.exponent >> bit) & 1 == 1) self.multiply(&power, &power, &base);
        }
        var one: Limbs = @splat(0);
        one[0] = 1;
        self.multiply(&power, &power, &one);

        // The whole padded block is made and compared, so there is no padding to be lenient about.
        const prefix = "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20".*;
        var expected: [most_bits / 8]u8 = @splat(0xff);
        const block = expected[0..signature.len];
        const tail = block[block.len - prefix.len - Sha256.digest_length ..];
        block[0] = 0;
        block[1] = 1;
        block[block.len - tail.len - 1] = 0;
        @memcpy(tail[0..prefix.len], &prefix);
        Sha256.hash(message, tail[prefix.len..][0..Sha256.digest_length], .{});
        return std.mem.eql(u64, power[0..self.limbs], load(block)[0..self.limbs]);
    }

    /// Whether the modulus is larger.
    fn exceeds(self: *const Key, number: *const Limbs) bool {
        var index = self.limbs;
        while (index > 0) {
            index -= 1;
            if (number[index] != self.modulus[index]) return number[index] < self.modulus[index];
        }
        return false;
    }

    fn subtractModulus(self: *const Key, number: *Limbs) void {
        var borrow: u64 = 0;
        for (number[0..self.limbs], self.modulus[0..self.limbs]) |*limb, minus| {
            const difference = limb.* -% minus -% borrow;
            limb.* = difference & mask;
            borrow = difference >> 63;
        }
    }

    /// 2^(26 * limbs) in Montgomery's form: 1 is doubled a hundred times or so, which is cheap, and that is squared.
    fn makeSquare(self: *const Key) Limbs {
        // R modulo the modulus, which is 1 in that form. It is the power of 2 below the modulus, doubled.
        var number: Limbs = @splat(0);
        const top = 8 * self.bytes - 1;
        number[top / radix] = @as(u64, 1) << @intCast(top % radix);
        const target = radix * self.limbs;
        for (top..target) |_| self.double(&number);

        var bits: u5 = 0;
        while (target >> bits > 127) bits += 1;
        for (0..target >> bits) |_| self.double(&number);
        while (bits > 0) {
            bits -= 1;
            self.multiply(&number, &number, &number);
            if ((target >> bits) & 1 == 1) self.double(&number);
        }
        return number;
    }

    fn double(self: *const Key, number: *Limbs) void {
        var carry: u64 = 0;
        for (number[0..self.limbs]) |*limb| {
            const sum = 2 * limb.* + carry;
            limb.* = sum & mask;
            carry = sum >> radix;
        }
        if (!self.exceeds(number)) self.subtractModulus(number);
    }

    /// a * b / R modulo the modulus. `result` may be one of the factors.
    fn multiply(self: *const Key, result: *Limbs, a: *const Limbs, b: *const Limbs) void {
        // Column by column: 158 rows of two products of 52 bits each.
        var columns: [2 * most_limbs]u64 align(16) = @splat(0);
        var row: usize = 0;
        while (row < self.limbs) : (row += 1) {
            const column: [*]u64 = columns[row..].ptr;
            const factor = b[row];
            const quotient = ((column[0] +% a[0] *% factor) *% self.negated_inverse) & mask;
            addRow(column, a, &self.modulus, factor, quotient, self.limbs / lanes);
            column[1] += column[0] >> radix;
        }
        var carry: u64 = 0;
        for (result[0..self.limbs], columns[self.limbs..][0..self.limbs]) |*limb, column| {
            const sum = column + carry;
            limb.* = sum & mask;
            carry = sum >> radix;
        }
        if (!self.exceeds(result)) self.subtractModulus(result);
    }
};

/// Where all the time goes: no bounds to be checked, and several limbs at once.
fn addRow(column: [*]u64, a: *const Limbs, modulus: *const Limbs, factor: u64, quotient: u64, count: usize) void {
    const factors: Lanes = @splat(factor);
    const quotients: Lanes = @splat(quotient);
    var columns = column;
    var x: [*]const u64 = a;
    var n: [*]const u64 = modulus;
    const end = x + count * lanes;
    while (x != end) {
        const sum: Lanes = columns[0..lanes].*;
        columns[0..lanes].* = sum +% @as(Lanes, x[0..lanes].*) *% factors +% @as(Lanes, n[0..lanes].*) *% quotients;
        columns += lanes;
        x += lanes;
        n += lanes;
    }
}

/// Big-endian bytes as limbs, the least one first.
fn load(bytes: []const u8) Limbs {
    var limbs: Limbs = @splat(0);
    var bits: u6 = 0;
    var held: u64 = 0;
    var limb: usize = 0;
    var index = bytes.len;
    while (index > 0) {
        index -= 1;
        held |= @as(u64, bytes[index]) << bits;
        bits += 8;
        if (bits >= radix) {
            limbs[limb] = held & mask;
            limb += 1;
            held >>= radix;
            bits -= radix;
        }
    }
    if (bits > 0) limbs[limb] = held;
    return limbs;
}
