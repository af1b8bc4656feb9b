// The benchmarks' upstream: one thread, epoll, HTTP/1.1 keep-alive, the same small answer to every bodiless request. It
// must cost little beside the proxies: it looks for the blank line that ends a head and parses nothing else.
// usage: upstream  (prints its port, serves 127.0.0.1 until its stdin closes)
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS = 4096, EVENTS = 64 };

static const char answer[] = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nx-upstream: bench\r\ncontent-length: 13\r\n\r\n"
                             "Hello, world\n";
static unsigned char matched[CONNECTIONS]; // how much of CRLFCRLF the connection's last bytes are

static void give_up(const char *what) {
  perror(what);
  exit(1);
}

static void serve(int fd) {
  static const char end[] = "\r\n\r\n";
  static char in[65536], out[65536];
  ssize_t got = recv(fd, in, sizeof in, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    close(fd);
    return;
  }
  size_t filled = 0;
  for (ssize_t i = 0; i < got; i++) {
    unsigned char m = matched[fd];
    m = in[i] == end[m] ? (unsigned char)(m + 1) : (unsigned char)(in[i] == '\r');
    if (m == 4) {
      if (filled + sizeof answer - 1 > sizeof out) break;
      memcpy(out + filled, answer, sizeof answer - 1);
      filled += sizeof answer - 1;
      m = 0;
    }
    matched[fd] = m;
  }
  if (filled && send(fd, out, filled, MSG_NOSIGNAL) != (ssize_t)filled) close(fd);
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), poll = epoll_create1(0), on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  if (listener < 0 || poll < 0) give_up("socket");
  if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1024)) give_up("listen");
  getsockname(listener, (struct sockaddr *)&address, &size);
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS];
  epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
  event.data.fd = 0;
  epoll_ctl(poll, EPOLL_CTL_ADD, 0, &event);
  for (;;) {
    int ready = epoll_wait(poll, events, EVENTS, -1);
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd;
      if (fd == 0) return 0;
      if (fd != listener) {
        serve(fd);
        continue;
      }
      int accepted = accept4(listener, 0, 0, SOCK_NONBLOCK);
      if (accepted < 0) continue;
      if (accepted >= CONNECTIONS) {
        close(accepted);
        continue;
      }
      matched[accepted] = 0;
      setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      event.data.fd = accepted;
      epoll_ctl(poll, EPOLL_CTL_ADD, accepted, &event);
    }
  }
}
