/* Traffic for tests/bench: servers and clients of one static program.
 *
 *   net echo PORT                 answer each byte (TCP, any number of clients)
 *   net sink PORT                 read and throw away
 *   net rtt HOST PORT ROUNDS      median microseconds of one byte there and back
 *   net flood HOST PORT SECONDS   Gbit/s written
 *   net idle HOST PORT COUNT      that many connections, each used once; then sleep
 *   net dns HOST NAME SECONDS     answers per second, 64 questions under way
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what) { perror(what); exit(1); }

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int dial(const char *host, int port, int kind) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &to.sin_addr);
    for (int try = 0;; try++) {
        int fd = socket(AF_INET, kind, 0), one = 1;
        if (fd < 0) die("socket");
        if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0) {
            if (kind == SOCK_STREAM) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            return fd;
        }
        if (try == 100) die("connect");
        close(fd);
        usleep(50000);
    }
}

static void serve(int port, int echo) {
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[64];
    static char buffer[256 << 10];
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 4096)) die("listen");
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                fd = accept(listener, 0, 0);
                if (fd < 0) continue;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                event.data.fd = fd;
                epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
                continue;
            }
            ssize_t length = read(fd, buffer, sizeof buffer);
            if (length <= 0 || (echo && write(fd, buffer, length) != length)) close(fd);
        }
    }
}

static int order(const void *a, const void *b) { return (*(double *)a > *(double *)b) - (*(double *)a < *(double *)b); }

static void rtt(const char *host, int port, int rounds) {
    int fd = dial(host, port, SOCK_STREAM);
    double *took = malloc(rounds * sizeof *took);
    char byte = 'x';
    for (int i = 0; i < rounds; i++) {
        double start = now();
        if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1) die("round trip");
        took[i] = (now() - start) * 1e6;
    }
    qsort(took, rounds, sizeof *took, order);
    printf("%.2f\n", took[rounds / 2]);
}

static void flood(const char *host, int port, double seconds) {
    static char buffer[256 << 10];
    int fd = dial(host, port, SOCK_STREAM);
    double start = now(), bytes = 0;
    while (now() - start < seconds) {
        ssize_t length = write(fd, buffer, sizeof buffer);
        if (length <= 0) die("write");
        bytes += length;
    }
    printf("%.3f\n", bytes * 8 / 1e9 / (now() - start));
}

static void idle(const char *host, int port, int count) {
    struct rlimit limit;
    char byte = 'x';
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    for (int i = 0; i < count; i++) {
        int fd = dial(host, port, SOCK_STREAM);
        if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1) die("idle");
    }
    puts("ready");
    fflush(stdout);
    pause();
}

static void dns(const char *host, const char *name, double seconds) {
    unsigned char query[512] = {0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0};
    int fd = dial(host, 53, SOCK_DGRAM), length = 12;
    for (const char *label = name; *label;) {
        size_t size = strcspn(label, ".");
        query[length++] = size;
        memcpy(query + length, label, size);
        length += size;
        label += size + (label[size] == '.');
    }
    query[length++] = 0;
    memcpy(query + length, "\0\1\0\1", 4);
    length += 4;
    struct timeval patience = {.tv_sec = 1};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    double start = now(), count = 0;
    unsigned char answer[2048];
    for (int i = 0; i < 64; i++) send(fd, query, length, 0);
    while (now() - start < seconds) {
        ssize_t size = recv(fd, answer, sizeof answer, 0);
        if (size < 12 || answer[7] == 0) { fprintf(stderr, "no answer\n"); exit(1); }
        count++;
        send(fd, query, length, 0);
    }
    printf("%.0f\n", count / (now() - start));
}

int main(int argc, char **argv) {
    const char *what = argc > 2 ? argv[1] : "";
    if (!strcmp(what, "echo") || !strcmp(what, "sink")) serve(atoi(argv[2]), what[0] == 'e');
    else if (argc < 5) { fprintf(stderr, "net: see the head of net.c\n"); return 2; }
    else if (!strcmp(what, "rtt")) rtt(argv[2], atoi(argv[3]), atoi(argv[4]));
    else if (!strcmp(what, "flood")) flood(argv[2], atoi(argv[3]), atof(argv[4]));
    else if (!strcmp(what, "idle")) idle(argv[2], atoi(argv[3]), atoi(argv[4]));
    else if (!strcmp(what, "dns")) dns(argv[2], argv[3], atof(argv[4]));
    return 0;
}
