/* The WASI functions that guests import: a log, a clock, randomness, an environment; nothing else is there.
 *
 * The same table serves `wasi_snapshot_preview1` and `wasi_unstable`. Return codes are proxy-wasm-cpp-host's (src/exports.cc).
 */
#include "core.h"

enum { SUCCESS = 0, BADF = 8, FAULT = 21, INVAL = 28, NOENT = 44, NOSYS = 52, NOTSUP = 58, NOTDIR_AS_CPP_HOST = 20 };

u32 proxy_log(u32 level, u32 message, u32 size);
u32 proxy_get_current_time_nanoseconds(u32 out);
static u32 fault(u32 status) { return status ? FAULT : SUCCESS; }
static u32 standard(u32 fd) { return fd == 1 || fd == 2 ? SUCCESS : BADF; }

/* stdout is a log line of level info, stderr of level error; one trailing newline is cut, but counted. */
EXPORT(wasi_fd_write) u32 wasi_fd_write(u32 fd, u32 vectors, u32 n, u32 out) {
  u32 list, total = 0, at, saved = scratch_top;
  if (standard(fd)) return BADF;
  if (n > 1024) return INVAL;
  if (guest_take(vectors, 8 * n, &list)) return FAULT;
  u32 *v = AT(u32, list);
  for (u32 i = 0; i < n; i++) {
    if (guest_check(v[2 * i], v[2 * i + 1]) || total + v[2 * i + 1] < total || total + v[2 * i + 1] > 1 << 20) return FAULT;
    total += v[2 * i + 1];
  }
  at = scratch(total);
  for (u32 i = 0, to = at; i < n; i++) {
    guest_read(to, v[2 * i], v[2 * i + 1]);
    to += v[2 * i + 1];
  }
  if (total) log_text(fd == 1 ? 2 : 4, at, AT(u8, at)[total - 1] == '\n' ? total - 1 : total);
  scratch_top = saved;
  return fault(guest_store(out, total));
}
EXPORT(wasi_fd_pwrite) u32 wasi_fd_pwrite(u32 fd, u32 vectors, u32 n, u64 offset, u32 out) {
  (void)offset;
  return wasi_fd_write(fd, vectors, n, out);
}

EXPORT(wasi_environ_sizes_get) u32 wasi_environ_sizes_get(u32 out_count, u32 out_size) {
  vm *v = AT(vm, call.vm);
  return fault(guest_store(out_count, v->environment_count) | guest_store(out_size, v->environment_bytes));
}
EXPORT(wasi_environ_get) u32 wasi_environ_get(u32 out_pointers, u32 out) {
  vm *v = AT(vm, call.vm);
  u32 status = guest_write(out, v->environment, v->environment_bytes);
  for (u32 i = 0, at = 0; i < v->environment_count && !status; i++) {
    status = guest_store(out_pointers + 4 * i, out + at);
    while (AT(u8, v->environment)[at++]) {}
  }
  return fault(status);
}
EXPORT(wasi_args_sizes_get) u32 wasi_args_sizes_get(u32 out_count, u32 out_size) {
  return fault(guest_store(out_count, 0) | guest_store(out_size, 0));
}
EXPORT(wasi_args_get) u32 wasi_args_get(u32 pointers, u32 bytes) { return (void)pointers, (void)bytes, SUCCESS; }

EXPORT(wasi_clock_time_get) u32 wasi_clock_time_get(u32 clock, u64 precision, u32 out) {
  (void)precision;
  return clock > 1 ? NOTSUP : fault(proxy_get_current_time_nanoseconds(out));
}
EXPORT(wasi_clock_res_get) u32 wasi_clock_res_get(u32 clock, u32 out) {
  if (clock > 1) return NOTSUP;
  u64 standing = call.time; /* to ask for the steps of the clock is not to read it */
  host(HOST_TIME);
  call.time = standing;
  return fault(guest_write(out, ADDRESS(call.a), 8));
}
EXPORT(wasi_random_get) u32 wasi_random_get(u32 out, u32 size) {
  if (size > 64 << 10) return INVAL;
  if (guest_check(out, size)) return FAULT;
  u32 saved = scratch_top, at = scratch(size);
  call.a[0] = at, call.a[1] = size;
  u32 status = host(HOST_RANDOM) ? NOSYS : fault(guest_write(out, at, size));
  scratch_top = saved;
  return status;
}
EXPORT(wasi_fd_fdstat_get) u32 wasi_fd_fdstat_get(u32 fd, u32 out) {
  static const u64 stat[3] = {0, 64, 0}; /* rights: fd_write */
  return standard(fd) ? BADF : fault(guest_write(out, ADDRESS(stat), sizeof stat));
}
EXPORT(wasi_poll_oneoff) u32 wasi_poll_oneoff(u32 in, u32 out, u32 n, u32 out_events) { /* Go's scheduler calls it and goes on */
  return (void)in, (void)out, (void)n, fault(guest_store(out_events, 0));
}
EXPORT(wasi_sched_yield) u32 wasi_sched_yield(void) { return SUCCESS; }
EXPORT(wasi_proc_exit) void wasi_proc_exit(u32 code) { call.a[0] = code, host(HOST_EXIT); }

EXPORT(wasi_fd_seek) u32 wasi_fd_seek(u32 fd, i64 offset, u32 whence, u32 out) {
  return (void)fd, (void)offset, (void)whence, (void)out, SUCCESS;
}
EXPORT(wasi_fd_close) u32 wasi_fd_close(u32 fd) { return (void)fd, SUCCESS; }
EXPORT(wasi_fd_advise) u32 wasi_fd_advise(u32 fd, u64 a, u64 b, u32 c) { return (void)fd, (void)a, (void)b, (void)c, SUCCESS; }
EXPORT(wasi_fd_allocate) u32 wasi_fd_allocate(u32 fd, u64 a, u64 b) { return (void)a, (void)b, standard(fd); }
EXPORT(wasi_fd_datasync) u32 wasi_fd_datasync(u32 fd) { return standard(fd); }
EXPORT(wasi_fd_sync) u32 wasi_fd_sync(u32 fd) { return standard(fd); }
EXPORT(wasi_fd_tell) u32 wasi_fd_tell(u32 fd, u32 out) {
  static const u64 zero = 0;
  return standard(fd) ? BADF : fault(guest_write(out, ADDRESS(&zero), 8));
}
EXPORT(wasi_fd_fdstat_set_rights) u32 wasi_fd_fdstat_set_rights(u32 fd, u64 a, u64 b) { return (void)a, (void)b, standard(fd); }
EXPORT(wasi_fd_filestat_set_size) u32 wasi_fd_filestat_set_size(u32 fd, u64 a) { return (void)a, standard(fd); }
EXPORT(wasi_fd_filestat_set_times) u32 wasi_fd_filestat_set_times(u32 fd, u64 a, u64 b, u32 c) {
  return (void)a, (void)b, (void)c, standard(fd);
}

/* Constant answers. */
#define A1 u32 a
#define A2 u32 a, u32 b
#define A3 A2, u32 c
#define A4 A3, u32 d
#define A5 A4, u32 e
#define A6 A5, u32 f
#define A7 A6, u32 g
#define ANSWER(name, parameters, status) EXPORT(wasi_##name) u32 wasi_##name(parameters) { return status; }
#pragma clang diagnostic ignored "-Wunused-parameter"
ANSWER(fd_prestat_get, A2, BADF)
ANSWER(fd_filestat_get, A2, BADF)
ANSWER(fd_read, A4, NOSYS)
EXPORT(wasi_fd_pread) u32 wasi_fd_pread(A3, u64 offset, u32 out) { return NOSYS; }
ANSWER(fd_fdstat_set_flags, A2, NOSYS)
ANSWER(fd_prestat_dir_name, A3, NOSYS)
EXPORT(wasi_path_open) u32 wasi_path_open(A5, u64 rights, u64 inheriting, u32 flags, u32 out) { return NOENT; }
EXPORT(wasi_fd_readdir) u32 wasi_fd_readdir(A3, u64 cookie, u32 out) { return NOTDIR_AS_CPP_HOST; }
EXPORT(wasi_fd_renumber) u32 wasi_fd_renumber(A2) { return standard(a) ? BADF : NOTSUP; }
ANSWER(path_filestat_get, A5, NOTSUP)
EXPORT(wasi_path_filestat_set_times) u32 wasi_path_filestat_set_times(A4, u64 access, u64 modified, u32 flags) { return NOTSUP; }
ANSWER(path_create_directory, A3, NOTSUP)
ANSWER(path_link, A7, NOTSUP)
ANSWER(path_readlink, A6, NOTSUP)
ANSWER(path_remove_directory, A3, NOTSUP)
ANSWER(path_rename, A6, NOTSUP)
ANSWER(path_symlink, A5, NOTSUP)
ANSWER(path_unlink_file, A3, NOTSUP)
ANSWER(sock_accept, A3, NOTSUP)
ANSWER(sock_recv, A6, NOTSUP)
ANSWER(sock_send, A5, NOTSUP)
ANSWER(sock_shutdown, A2, NOTSUP)
/* Names that proxy-wasm-cpp-host offers beside the ABI. */
EXPORT(pthread_equal) u32 pthread_equal(A2) { return a == b; }
EXPORT(emscripten_notify_memory_growth) void emscripten_notify_memory_growth(A1) {}
