//! Buckets in shared data, in a table of fixed size: shared data keeps every key for ever, and clients are without number.
//!
//! The table has rows, each a value of shared data under its own key, and each row room for eight buckets: a tag (64 bits
//! of a keyed hash) and the time at which the bucket is full. A full bucket is the same as none, so its place is free.
//! Where all eight are in use, the one that would be full first makes room: a row that is crowded forgets those who
//! asked the least. The hash has a key of its own that is never shown, so nobody can choose whom to crowd out.

const std = @import("std");
const pw = @import("proxy_wasm");

const ways = 8;
const attempts = 100; // of a compare-and-swap; each failure is another worker's success

const Place = extern struct { tag: u64, full_at: u64 };
const Row = [ways]Place;
const SipHash = std.hash.SipHash64(1, 3);

pub const Table = struct {
    rows: u32,
    key: [SipHash.key_length]u8,

    /// NoRoom: the host has no memory left for shared data. Contended: other workers were always faster.
    pub const Error = error{ NoRoom, Contended };
    pub const Bucket = struct { tag: u64, row: u32 };
    pub const Result = struct { taken: bool, full_at: u64 };

    /// The table of this VM's `vm_id`, with room for so many buckets.
    pub fn open(buckets: u32) error{NoRoom}!Table {
        var table = Table{ .rows = buckets / ways, .key = undefined };
        const name = "rate-limit/key";
        // All workers have to use one key: the first one's. Two readings of a clock in nanoseconds are what there is to
        // make one from; it has to be unknown to clients, not to the machine's owner.
        std.mem.writeInt(u64, table.key[0..8], pw.now(), .little);
        std.mem.writeInt(u64, table.key[8..16], pw.now() *% 0x9e3779b97f4a7c15, .little);
        if (pw.shared_data.set(name, &table.key, pw.shared_data.absent) == .stored) return table;
        const item = pw.shared_data.get(name) orelse return error.NoRoom;
        defer pw.free(item.value);
        if (item.value.len != table.key.len) return error.NoRoom;
        @memcpy(&table.key, item.value);
        return table;
    }

    /// To be fed with what names a bucket.
    pub fn hasher(self: *const Table, identity: u64) SipHash {
        var result = SipHash.init(&self.key);
        result.update(std.mem.asBytes(&identity));
        return result;
    }

    pub fn bucket(self: *const Table, hash: u64) Bucket {
        return .{ .tag = @max(hash, 1), .row = @intCast((hash >> 32) % self.rows) }; // tag 0 is a place never used
    }

    /// Takes `cost` from a bucket that holds `depth`, both in nanoseconds, if it has that much.
    pub fn take(self: *const Table, wanted: Bucket, now: u64, cost: u64, depth: u64) Error!Result {
        for (0..attempts) |_| {
            var stored = Stored.read(self, wanted.row);
            const place = find(&stored.row, wanted.tag, now);
            // A clock that was set back would make a bucket refuse for as long: it is never emptier than empty.
            const full_at = @min(@max(place.full_at, now), now + depth);
            if (full_at + cost > now + depth) return .{ .taken = false, .full_at = full_at };
            place.full_at = full_at + cost;
            if (try stored.write()) return .{ .taken = true, .full_at = place.full_at };
        }
        return error.Contended;
    }

    /// Gives back what was taken from a bucket.
    pub fn give(self: *const Table, wanted: Bucket, cost: u64) Error!void {
        for (0..attempts) |_| {
            var stored = Stored.read(self, wanted.row);
            for (&stored.row) |*place| {
                if (place.tag == wanted.tag) place.full_at -|= cost;
            }
            if (try stored.write()) return;
        }
        return error.Contended;
    }
};

const Stored = struct {
    name: [24]u8,
    length: usize,
    row: Row,
    cas: u32,

    fn read(table: *const Table, number: u32) Stored {
        var stored: Stored = undefined;
        // The number of rows is part of the name: with another one the places are others.
        const name = std.fmt.bufPrint(&stored.name, "rate-limit/{d}/{d}", .{ table.rows, number }) catch unreachable;
        stored.length = name.len;
        stored.row = @splat(.{ .tag = 0, .full_at = 0 });
        stored.cas = pw.shared_data.absent;
        const item = pw.shared_data.get(name) orelse return stored;
        defer pw.free(item.value);
        if (item.value.len == @sizeOf(Row)) @memcpy(std.mem.asBytes(&stored.row), item.value);
        stored.cas = item.cas;
        return stored;
    }

    /// False if the row has changed since it was read.
    fn write(self: *const Stored) error{NoRoom}!bool {
        return switch (pw.shared_data.set(self.name[0..self.length], std.mem.asBytes(&self.row), self.cas)) {
            .stored => true,
            .changed => false,
            .failed => error.NoRoom,
        };
    }
};

/// The bucket's place in its row, made if it has none.
fn find(row: *Row, tag: u64, now: u64) *Place {
    var first: *Place = &row[0];
    for (row) |*place| {
        if (place.tag == tag) return place;
        if (place.full_at < first.full_at) first = place;
    }
    first.* = .{ .tag = tag, .full_at = now };
    return first;
}
