//! What a filter keeps per configuration. One VM may serve several configurations, each of them a root context with its
//! streams.

const std = @import("std");
const pw = @import("proxy_wasm");
const config = @import("config.zig");

/// `Root` is what one configuration comes to. `Root.read(config.Reader) config.Error!Root` makes it; what that allocates
/// in the reader's arena lives until the root is replaced or deleted; for the rest there may be a `deinit`.
pub fn Roots(comptime Root: type, comptime filter: []const u8) type {
    return struct {
        const Self = @This();
        const Entry = struct { arena: std.heap.ArenaAllocator, root: Root };

        by_id: pw.ContextMap(*Entry) = .{},
        root_of_stream: pw.ContextMap(u32) = .{},

        /// For `proxy_on_context_create`.
        pub fn create(self: *Self, context: u32, parent: u32) void {
            if (parent != 0) self.root_of_stream.put(context, parent);
        }

        /// For `proxy_on_configure`: false, with a log line, if the configuration is refused; the one before stays then.
        pub fn configure(self: *Self, id: u32) bool {
            const entry = pw.allocator.create(Entry) catch pw.outOfMemory();
            entry.arena = .init(pw.allocator);
            const reader = config.Reader{ .arena = entry.arena.allocator(), .filter = filter };
            entry.root = Root.read(reader) catch |reason| {
                if (reason == error.OutOfMemory) pw.outOfMemory();
                destroy(entry);
                return false;
            };
            self.drop(id);
            self.by_id.put(id, entry);
            return true;
        }

        /// The configuration that a stream is under.
        pub fn of(self: *Self, stream: u32) ?*Root {
            return self.get((self.root_of_stream.get(stream) orelse return null).*);
        }

        pub fn get(self: *Self, id: u32) ?*Root {
            const entry = self.by_id.get(id) orelse return null;
            return &entry.*.root;
        }

        /// The id of the root context of a stream.
        pub fn idOf(self: *Self, stream: u32) ?u32 {
            return if (self.root_of_stream.get(stream)) |id| id.* else null;
        }

        /// For `proxy_on_delete`.
        pub fn delete(self: *Self, context: u32) void {
            if (!self.root_of_stream.remove(context)) self.drop(context);
        }

        fn drop(self: *Self, id: u32) void {
            const entry = (self.by_id.get(id) orelse return).*;
            _ = self.by_id.remove(id);
            if (@hasDecl(Root, "deinit")) entry.root.deinit();
            destroy(entry);
        }

        fn destroy(entry: *Entry) void {
            entry.arena.deinit();
            pw.allocator.destroy(entry);
        }
    };
}
