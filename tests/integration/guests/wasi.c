// What a filter sees of its surroundings by way of libc, told on standard output and error.
#include "proxy_wasm.h"
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

EXPORT(proxy_on_configure) int on_configure(uint32_t root, size_t size) {
  size_t variables = 0;
  while (environ && environ[variables]) variables++;
  const char *mode = getenv("MODE"), *home = getenv("HOME");
  printf("%zu variables, MODE=%s, HOME=%s\n", variables, mode ? mode : "none", home ? home : "none");
  struct timespec now, one, two;
  uint64_t host;
  clock_gettime(CLOCK_REALTIME, &now);
  proxy_get_current_time_nanoseconds(&host);
  clock_gettime(CLOCK_MONOTONIC, &one);
  clock_gettime(CLOCK_MONOTONIC, &two);
  int64_t apart = (int64_t)host - (now.tv_sec * 1000000000LL + now.tv_nsec);
  int grows = two.tv_sec > one.tv_sec || (two.tv_sec == one.tv_sec && two.tv_nsec >= one.tv_nsec);
  printf("epoch %lld, host %s, monotonic %s\n", (long long)now.tv_sec, apart >= 0 && apart < 1000000000 ? "agrees" : "differs",
         grows ? "grows" : "shrinks");
  unsigned char a[32] = {0}, b[32] = {0}, zero[32] = {0};
  int drew = getentropy(a, sizeof a) | getentropy(b, sizeof b);
  printf("random %s\n", !drew && memcmp(a, b, 32) && memcmp(a, zero, 32) ? "differs" : "repeats");
  int opened = open("/etc/passwd", O_RDONLY);
  fprintf(stderr, "open %s\n", opened < 0 ? "refused" : "worked");
  fflush(NULL);
  return 1;
}
