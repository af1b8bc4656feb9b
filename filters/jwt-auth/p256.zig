//! ES256: ECDSA on P-256 with SHA-256 (FIPS 186-5 section 6.4.2), verification only.
//!
//! Zig's std.crypto needs 19 million units of fuel for a signature, because WebAssembly has no product of two 64-bit
//! numbers; this has smaller limbs and needs 4.3 million. Nothing here is secret, so nothing takes the same time.

const std = @import("std");
const Sha256 = std.crypto.hash.sha2.Sha256;

const Number = [8]u32;

/// Numbers modulo a prime of 256 bits, in Montgomery's form with limbs of 32 bits: for the order of the group.
fn Field(comptime prime: Number) type {
    return struct {
        const negated_inverse: u32 = blk: {
            var inverse: u32 = 1;
            for (0..5) |_| inverse *%= 2 -% prime[0] *% inverse;
            break :blk 0 -% inverse;
        };
        const whole: u256 = blk: {
            var value: u256 = 0;
            for (0..8) |index| value |= @as(u256, prime[index]) << (32 * index);
            break :blk value;
        };
        const square_of_r = split(@intCast((@as(u1024, 1) << 512) % whole));

        fn multiply(a: Number, b: Number) Number {
            var sum: [9]u32 = @splat(0);
            inline for (0..8) |row| {
                const factor: u64 = b[row];
                var product = a[0] *% factor +% sum[0];
                const quotient: u64 = @as(u32, @truncate(product)) *% negated_inverse;
                var reduced = quotient *% prime[0] +% @as(u32, @truncate(product));
                inline for (1..8) |column| {
                    product = a[column] *% factor +% (product >> 32) +% sum[column];
                    reduced = quotient *% prime[column] +% (reduced >> 32) +% @as(u32, @truncate(product));
                    sum[column - 1] = @truncate(reduced);
                }
                const last = (product >> 32) +% (reduced >> 32) +% sum[8];
                sum[7] = @truncate(last);
                sum[8] = @truncate(last >> 32);
            }
            return reduce(sum[0..8].*, sum[8]);
        }

        /// Less than the prime, from less than twice the prime.
        fn reduce(a: Number, carry: u32) Number {
            var result: Number = undefined;
            const borrow = minus(&result, a, prime);
            return if (carry == 0 and borrow == 1) a else result;
        }

        fn isLess(a: Number) bool {
            var unused: Number = undefined;
            return minus(&unused, a, prime) == 1;
        }

        fn toForm(a: Number) Number {
            return multiply(a, square_of_r);
        }

        /// 1 / a of numbers that are not in Montgomery's form, by the binary Euclidean algorithm (Knuth, TAOCP 4.5.2).
        fn invert(a: Number) Number {
            var u = a;
            var v = prime;
            var x: Number = .{ 1, 0, 0, 0, 0, 0, 0, 0 }; // u = x * a, v = y * a
            var y: Number = @splat(0);
            const last = Number{ 1, 0, 0, 0, 0, 0, 0, 0 };
            while (true) {
                while (u[0] & 1 == 0) {
                    halve(&u, 0);
                    halveModulo(&x);
                }
                if (std.mem.eql(u32, &u, &last)) return x;
                while (v[0] & 1 == 0) {
                    halve(&v, 0);
                    halveModulo(&y);
                }
                if (std.mem.eql(u32, &v, &last)) return y;
                var difference: Number = undefined;
                if (minus(&difference, u, v) == 0) {
                    u = difference;
                    x = subtract(x, y);
                } else {
                    _ = minus(&v, v, u);
                    y = subtract(y, x);
                }
            }
        }

        fn halveModulo(a: *Number) void {
            var carry: u1 = 0;
            if (a[0] & 1 == 1) carry = plus(a, a.*, prime);
            halve(a, carry);
        }

        fn subtract(a: Number, b: Number) Number {
            var result: Number = undefined;
            if (minus(&result, a, b) == 1) _ = plus(&result, result, prime);
            return result;
        }
    };
}

fn halve(a: *Number, above: u1) void {
    inline for (0..7) |index| a[index] = (a[index] >> 1) | (a[index + 1] << 31);
    a[7] = (a[7] >> 1) | (@as(u32, above) << 31);
}

/// a + b; answers the carry.
fn plus(result: *Number, a: Number, b: Number) u1 {
    var carry: u64 = 0;
    inline for (0..8) |index| {
        carry +%= @as(u64, a[index]) +% b[index];
        result[index] = @truncate(carry);
        carry >>= 32;
    }
    return @truncate(carry);
}

/// a - b; answers the borrow.
fn minus(result: *Number, a: Number, b: Number) u1 {
    var borrow: u64 = 0;
    inline for (0..8) |index| {
        const difference = @as(u64, a[index]) -% b[index] -% borrow;
        result[index] = @truncate(difference);
        borrow = difference >> 63;
    }
    return @truncate(borrow);
}

fn split(value: u256) Number {
    var result: Number = undefined;
    for (&result, 0..) |*limb, index| limb.* = @truncate(value >> @intCast(32 * index));
    return result;
}

fn load(bytes: *const [32]u8) Number {
    var result: Number = undefined;
    for (&result, 0..) |*limb, index| limb.* = std.mem.readInt(u32, bytes[28 - 4 * index ..][0..4], .big);
    return result;
}

fn isZero(a: Number) bool {
    return std.mem.allEqual(u32, &a, 0);
}

const N = Field(split(0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551));
const prime_of_field = 0xffffffff00000001000000000000000000000000ffffffffffffffffffffffff;

/// Numbers modulo the prime of P-256 (SP 800-186 section 3.2.1.3), in Montgomery's form with R = 2^260: ten limbs of 26
/// bits, with signs. Sums and differences are not brought back below the prime but by `weaken`, and limbs may grow.
///
/// What has to hold, with numbers counted in primes: a product needs factors whose own product is at most 16 (and limbs
/// of less than 2^29), and is itself between -1 and 2. What `weaken` gives is between -0.001 and 1.001.
const F = struct {
    const Limbs = [10]i64;
    const radix = 26;
    const mask = (1 << radix) - 1;
    const one = comptimeSplit((1 << 260) % prime_of_field);
    const square_of_r = comptimeSplit((1 << 520) % prime_of_field);
    const prime_limbs = comptimeSplit(prime_of_field);

    fn comptimeSplit(comptime value: comptime_int) Limbs {
        var result: Limbs = undefined;
        for (&result, 0..) |*limb, index| limb.* = (value >> (radix * index)) & mask;
        return result;
    }

    fn fromNumber(a: Number) Limbs {
        var result: Limbs = undefined;
        var held: u64 = 0;
        var bits: u6 = 0;
        var next: usize = 0;
        for (&result) |*limb| {
            if (bits < radix and next < 8) {
                held |= @as(u64, a[next]) << bits;
                bits += 32;
                next += 1;
            }
            limb.* = @intCast(held & mask);
            held >>= radix;
            bits -|= radix;
        }
        return multiply(result, square_of_r);
    }

    fn add(a: Limbs, b: Limbs) Limbs {
        var result: Limbs = undefined;
        inline for (0..10) |index| result[index] = a[index] +% b[index];
        return result;
    }

    fn subtract(a: Limbs, b: Limbs) Limbs {
        var result: Limbs = undefined;
        inline for (0..10) |index| result[index] = a[index] -% b[index];
        return result;
    }

    fn times(a: Limbs, comptime factor: i64) Limbs {
        var result: Limbs = undefined;
        inline for (0..10) |index| result[index] = a[index] *% factor;
        return result;
    }

    fn multiply(a: Limbs, b: Limbs) Limbs {
        var columns: [20]i64 = @splat(0);
        inline for (0..19) |column| {
            inline for (column -| 9..@min(column + 1, 10)) |row| columns[column] +%= a[row] *% b[column - row];
        }
        return reduce(columns);
    }

    fn square(a: Limbs) Limbs {
        var columns: [20]i64 = @splat(0);
        inline for (0..19) |column| {
            inline for (column -| 9..(column + 1) / 2) |row| columns[column] +%= a[row] *% a[column - row];
            columns[column] *%= 2;
            if (column % 2 == 0) columns[column] +%= a[column / 2] *% a[column / 2];
        }
        return reduce(columns);
    }

    /// The prime is 2^256 - 2^224 + 2^192 + 2^96 - 1, so adding what makes a column 0 takes shifts only.
    fn reduce(input: [20]i64) Limbs {
        var columns = input;
        inline for (0..10) |column| {
            const quotient = columns[column] & mask;
            columns[column + 1] +%= columns[column] >> radix;
            columns[column + 3] +%= quotient << (96 - 3 * radix);
            columns[column + 7] +%= quotient << (192 - 7 * radix);
            columns[column + 8] -%= quotient << (224 - 8 * radix);
            columns[column + 9] +%= quotient << (256 - 9 * radix);
        }
        return carry(columns[10..20].*);
    }

    /// Limbs of 26 bits without signs, but for the last.
    fn carry(input: Limbs) Limbs {
        var result = input;
        inline for (0..9) |index| {
            result[index + 1] +%= result[index] >> radix;
            result[index] &= mask;
        }
        return result;
    }

    /// The same number between about 0 and the prime, from up to 32 primes.
    fn weaken(a: Limbs) Limbs {
        var result = carry(a);
        const above = result[9] >> (256 - 9 * radix);
        result[9] &= (1 << (256 - 9 * radix)) - 1;
        // 2^256 is 2^224 - 2^192 - 2^96 + 1.
        result[0] +%= above;
        result[3] -%= above << (96 - 3 * radix);
        result[7] -%= above << (192 - 7 * radix);
        result[8] +%= above << (224 - 8 * radix);
        return result;
    }

    /// Whether a number of up to 32 primes is a multiple of it.
    fn isMultiple(a: Limbs) bool {
        const number = carry(weaken(a));
        return std.mem.allEqual(i64, &number, 0) or std.mem.eql(i64, &number, &prime_limbs);
    }
};

const coefficient_b = split(0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b);
const generator_x = split(0x6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296);
const generator_y = split(0x4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5);

/// (x / z^2, y / z^3), each of them weakened; z = 0 is the point at infinity.
const Point = struct {
    x: F.Limbs,
    y: F.Limbs,
    z: F.Limbs,

    const infinity = Point{ .x = F.one, .y = F.one, .z = @splat(0) };

    fn isInfinity(p: Point) bool {
        return std.mem.allEqual(i64, &p.z, 0); // only `infinity` itself: no sum of two different points has z = 0
    }

    /// hyperelliptic.org/EFD "dbl-2001-b", for curves with a = -3. No point of P-256 has y = 0.
    fn double(p: Point) Point {
        const delta = F.square(p.z);
        const gamma = F.square(p.y);
        const beta = F.multiply(p.x, gamma);
        const alpha = F.weaken(F.times(F.multiply(F.subtract(p.x, delta), F.add(p.x, delta)), 3));
        const x = F.weaken(F.subtract(F.square(alpha), F.times(beta, 8)));
        const z = F.weaken(F.subtract(F.subtract(F.square(F.add(p.y, p.z)), gamma), delta));
        const turned = F.multiply(alpha, F.subtract(F.times(beta, 4), x));
        const y = F.weaken(F.subtract(turned, F.times(F.square(gamma), 8)));
        return .{ .x = x, .y = y, .z = z };
    }

    /// EFD "add-1998-cmo-2", with the cases that it leaves out.
    fn add(p: Point, q: Point) Point {
        if (p.isInfinity()) return q;
        if (q.isInfinity()) return p;
        const pz2 = F.square(p.z);
        const qz2 = F.square(q.z);
        const pu = F.multiply(p.x, qz2);
        const ps = F.multiply(p.y, F.multiply(q.z, qz2));
        const h = F.weaken(F.subtract(F.multiply(q.x, pz2), pu));
        const r = F.weaken(F.subtract(F.multiply(q.y, F.multiply(p.z, pz2)), ps));
        if (F.isMultiple(h)) return if (F.isMultiple(r)) p.double() else infinity;
        const h2 = F.square(h);
        const h3 = F.multiply(h, h2);
        const v = F.multiply(pu, h2);
        const x = F.weaken(F.subtract(F.subtract(F.square(r), h3), F.times(v, 2)));
        const y = F.weaken(F.subtract(F.multiply(r, F.subtract(v, x)), F.multiply(ps, h3)));
        return .{ .x = x, .y = y, .z = F.weaken(F.multiply(F.multiply(p.z, q.z), h)) };
    }

    fn negate(p: Point) Point {
        return .{ .x = p.x, .y = F.weaken(F.times(p.y, -1)), .z = p.z };
    }
};

fn isOnCurve(x: F.Limbs, y: F.Limbs) bool {
    const slope = F.weaken(F.subtract(F.square(x), F.times(F.one, 3)));
    const right = F.add(F.multiply(slope, x), F.fromNumber(coefficient_b));
    return F.isMultiple(F.subtract(F.square(y), right));
}

/// 1P, 3P, 5P ... 15P.
const Odds = [8]Point;

fn odds(p: Point) Odds {
    var result: Odds = undefined;
    const twice = p.double();
    result[0] = p;
    for (1..8) |index| result[index] = result[index - 1].add(twice);
    return result;
}

/// Digits for powers of 2, the lowest first, each 0 or odd in -15 ... 15, with at least four zeros between any two.
const Digits = [257]i8;

fn digits(scalar: Number) Digits {
    var result: Digits = @splat(0);
    var rest: [9]u32 = scalar ++ [1]u32{0};
    var position: usize = 0;
    while (position < 257) {
        const limb = position / 32;
        const offset: u5 = @intCast(position % 32);
        if ((rest[limb] >> offset) & 1 == 0) {
            position += 1;
            continue;
        }
        const both = @as(u64, rest[limb]) | (if (limb < 8) @as(u64, rest[limb + 1]) << 32 else 0);
        const window: i8 = @intCast((both >> offset) & 31);
        const digit = if (window > 16) window - 32 else window;
        result[position] = digit;
        if (digit < 0) { // what was taken too much comes back as a carry
            var carry_at = position + 5;
            while ((rest[carry_at / 32] >> @intCast(carry_at % 32)) & 1 == 1) : (carry_at += 1) {
                rest[carry_at / 32] &= ~(@as(u32, 1) << @intCast(carry_at % 32));
            }
            rest[carry_at / 32] |= @as(u32, 1) << @intCast(carry_at % 32);
        }
        position += 5;
    }
    return result;
}

fn choose(table: *const Odds, digit: i8) Point {
    const point = table[@abs(digit) / 2];
    return if (digit < 0) point.negate() else point;
}

var generator_odds: ?Odds = null;

pub const Key = struct {
    x: F.Limbs,
    y: F.Limbs,

    /// The coordinates, 32 bytes each (RFC 7518 section 6.2.1); null if they are not those of a point of the curve.
    pub fn init(x_bytes: []const u8, y_bytes: []const u8) ?Key {
        if (x_bytes.len != 32 or y_bytes.len != 32) return null;
        const x = load(x_bytes[0..32]);
        const y = load(y_bytes[0..32]);
        if (!isCoordinate(x) or !isCoordinate(y)) return null;
        const key = Key{ .x = F.weaken(F.fromNumber(x)), .y = F.weaken(F.fromNumber(y)) };
        return if (isOnCurve(key.x, key.y)) key else null;
    }

    /// The signature is r and s, 32 bytes each (RFC 7518 section 3.4).
    pub fn verify(self: *const Key, message: []const u8, signature: []const u8) bool {
        if (signature.len != 64) return false;
        const r = load(signature[0..32]);
        const s = load(signature[32..64]);
        if (isZero(r) or isZero(s) or !N.isLess(r) or !N.isLess(s)) return false;
        var hash: [32]u8 = undefined;
        Sha256.hash(message, &hash, .{});
        const inverse = N.toForm(N.invert(s));
        const of_generator = digits(N.multiply(N.reduce(load(&hash), 0), inverse));
        const of_key = digits(N.multiply(r, inverse));

        if (generator_odds == null) generator_odds = odds(.{
            .x = F.weaken(F.fromNumber(generator_x)),
            .y = F.weaken(F.fromNumber(generator_y)),
            .z = F.one,
        });
        const key_odds = odds(.{ .x = self.x, .y = self.y, .z = F.one });
        var sum = Point.infinity;
        var index: usize = of_key.len;
        while (index > 0) {
            index -= 1;
            if (!sum.isInfinity()) sum = sum.double();
            if (of_generator[index] != 0) sum = sum.add(choose(&generator_odds.?, of_generator[index]));
            if (of_key[index] != 0) sum = sum.add(choose(&key_odds, of_key[index]));
        }
        if (sum.isInfinity()) return false;

        // x / z^2 modulo the order is r: x is r * z^2, or (r + order) * z^2 where that is less than the prime.
        const z2 = F.square(sum.z);
        if (isProduct(r, z2, sum.x)) return true;
        var larger: Number = undefined;
        const carry = plus(&larger, r, comptime split(N.whole));
        return carry == 0 and isCoordinate(larger) and isProduct(larger, z2, sum.x);
    }
};

fn isProduct(a: Number, b: F.Limbs, product: F.Limbs) bool {
    return F.isMultiple(F.subtract(F.multiply(F.fromNumber(a), b), product));
}

fn isCoordinate(a: Number) bool {
    var unused: Number = undefined;
    return minus(&unused, a, comptime split(prime_of_field)) == 1;
}
