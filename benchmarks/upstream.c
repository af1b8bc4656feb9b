// The benchmarks' upstream: one thread, epoll, HTTP/1.1 keep-alive. It must cost little beside the proxies: of a head it
// looks at the first bytes of the path and at the blank line that ends it, and parses nothing else.
//   /bytes/N   a text of N bytes (up to 1 GB)
//   /json      about 64 kB of JSON, 700 objects
//   other      "Hello, world\n"
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

enum { CONNECTIONS = 4096, EVENTS = 64, LINE = 48, TEXT = 1 << 20, ROWS = 700, JSON = ROWS * 128 };

static const char hello[] = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nx-upstream: bench\r\ncontent-length: 13\r\n\r\n"
                            "Hello, world\n";
static char text[TEXT], json[JSON];
static size_t json_size;

static struct connection {
  unsigned char matched;    // how much of CRLFCRLF the last bytes are
  unsigned char line_size;  // of `line`
  char line[LINE];          // the head's first bytes
  char head[192];           // of the answer that is on its way, with a body of its own size
  size_t head_at, head_size;
  const char *body;         // its first byte; `text` begins again behind its end
  size_t body_at, body_size;
} connections[CONNECTIONS];

static int poll_fd;

static void give_up(const char *what) {
  perror(what);
  exit(1);
}

static void fill(void) {
  static const char row[] = "all work and no play makes a dull benchmark, and this line has 63.\n";
  for (size_t i = 0; i < TEXT; i++) text[i] = row[i % (sizeof row - 1)];
  for (int i = 0; i < ROWS; i++)
    json_size += (size_t)snprintf(json + json_size, JSON - json_size,
                                  "%c{\"id\": %d, \"name\": \"an ordinary item\", \"price\": 12.5, \"tags\": [\"a\", \"b\"], \"sold\": false}",
                                  i ? ',' : '[', i);
  json[json_size++] = ']';
}

static void watch(int fd, unsigned events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  epoll_ctl(poll_fd, EPOLL_CTL_MOD, fd, &event);
}

// Sends what the socket takes of the answer under way. Returns -1 if the connection is gone.
static int push(int fd) {
  struct connection *c = &connections[fd];
  while (c->head_at < c->head_size || c->body_at < c->body_size) {
    int in_head = c->head_at < c->head_size;
    size_t limit = c->body == text ? TEXT : c->body_size, start = c->body_at % limit, left = c->body_size - c->body_at;
    const char *from = in_head ? c->head + c->head_at : c->body + start;
    size_t size = in_head ? c->head_size - c->head_at : left < limit - start ? left : limit - start;
    ssize_t sent = send(fd, from, size, MSG_NOSIGNAL | (in_head ? MSG_MORE : 0));
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) {
      watch(fd, EPOLLIN | EPOLLOUT);
      return 0;
    }
    if (sent < 0) return -1;
    if (in_head) c->head_at += (size_t)sent;
    else c->body_at += (size_t)sent;
  }
  c->head_size = c->head_at = c->body_size = c->body_at = 0;
  return 0;
}

// Begins an answer with a body; 0 if the path asks for none, -1 if the connection is gone.
static int begin(int fd) {
  struct connection *c = &connections[fd];
  c->line[c->line_size < LINE ? c->line_size : LINE - 1] = 0;
  const char *path = strchr(c->line, ' '), *type = "text/plain";
  if (!path) return 0;
  if (!strncmp(path, " /bytes/", 8)) {
    c->body = text;
    c->body_size = strtoul(path + 8, 0, 10);
    if (c->body_size > 1000000000) return -1;
  } else if (!strncmp(path, " /json ", 7)) {
    c->body = json;
    c->body_size = json_size;
    type = "application/json";
  } else {
    return 0;
  }
  c->head_size = (size_t)snprintf(c->head, sizeof c->head,
                                  "HTTP/1.1 200 OK\r\ncontent-type: %s\r\nx-upstream: bench\r\ncontent-length: %zu\r\n\r\n", type,
                                  c->body_size);
  c->head_at = c->body_at = 0;
  return push(fd) ? -1 : 1;
}

static void serve(int fd) {
  static const char end[] = "\r\n\r\n";
  static char in[65536], out[65536];
  struct connection *c = &connections[fd];
  ssize_t got = recv(fd, in, sizeof in, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    close(fd);
    return;
  }
  size_t filled = 0;
  for (ssize_t i = 0; i < got; i++) {
    if (c->line_size < LINE) c->line[c->line_size++] = in[i];
    unsigned char m = c->matched;
    m = in[i] == end[m] ? (unsigned char)(m + 1) : (unsigned char)(in[i] == '\r');
    if (m == 4) {
      m = 0;
      // Who asks again before a long answer is through would need a queue here; no proxy does (RFC 9112 9.3.2 lets it).
      int began = c->body_size ? -1 : begin(fd);
      if (began < 0) {
        close(fd);
        return;
      }
      c->line_size = 0;
      if (!began) {
        if (filled + sizeof hello - 1 > sizeof out) break;
        memcpy(out + filled, hello, sizeof hello - 1);
        filled += sizeof hello - 1;
      }
    }
    c->matched = m;
  }
  if (filled && send(fd, out, filled, MSG_NOSIGNAL) != (ssize_t)filled) close(fd);
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  fill();
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
  poll_fd = epoll_create1(0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  if (listener < 0 || poll_fd < 0) give_up("socket");
  if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1024)) give_up("listen");
  getsockname(listener, (struct sockaddr *)&address, &size);
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS];
  epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &event);
  event.data.fd = 0;
  epoll_ctl(poll_fd, EPOLL_CTL_ADD, 0, &event);
  for (;;) {
    int ready = epoll_wait(poll_fd, events, EVENTS, -1);
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd;
      if (fd == 0) return 0;
      if (fd != listener) {
        if (events[i].events & EPOLLOUT) {
          watch(fd, EPOLLIN);
          if (push(fd)) {
            close(fd);
            continue;
          }
        }
        if (events[i].events & ~(unsigned)EPOLLOUT) serve(fd);
        continue;
      }
      int accepted = accept4(listener, 0, 0, SOCK_NONBLOCK);
      if (accepted < 0) continue;
      if (accepted >= CONNECTIONS) {
        close(accepted);
        continue;
      }
      memset(&connections[accepted], 0, sizeof connections[accepted]);
      setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      event.events = EPOLLIN;
      event.data.fd = accepted;
      epoll_ctl(poll_fd, EPOLL_CTL_ADD, accepted, &event);
    }
  }
}
