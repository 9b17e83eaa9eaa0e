/*
 * The MTA's side of a milter benchmark: plays recorded dialogues as fast as the milter answers.
 *
 *   load send SOCKET SCRIPT CONNECTIONS MESSAGES WARMUP SECONDS
 *   load answer SOCKET SCRIPT
 *
 * "send" holds CONNECTIONS connections at once, each with MESSAGES messages one after the other,
 * then a new one in its place. Messages that end within SECONDS after WARMUP seconds are counted;
 * after that, those that are under way come to their end. If none ends in time, the first one that
 * ends later is counted, and SECONDS last until then. It prints one JSON object. An answer that was
 * not recorded is an error: exit status 1.
 *
 * "answer" is a milter that does nothing at all: what "send" reaches with it is the most that it
 * can measure of anything else.
 *
 * All packets are made in Python (load.py) and only copied here. SCRIPT holds, each as 32 bits of
 * length, high octet first, and the octets themselves: the negotiation and its answer; the number
 * of steps of a connection's first message, and each step; the same of any later message; QUIT. A
 * step is what an MTA writes until it waits for a reply.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_STEPS 64
#define MAX_CONNECTIONS 256
#define MAX_PACKET (1 << 16)
#define MAX_LATENCIES (1 << 23) /* messages of one run */

struct octets {
    uint32_t length;
    const unsigned char *data;
};

struct message {
    uint32_t count;
    struct octets steps[MAX_STEPS];
};

static struct octets negotiation, agreed, quit;
static struct message first, later;

struct connection {
    int fd;
    unsigned sent;         /* messages begun on this connection */
    unsigned step;         /* the step whose reply is awaited */
    int negotiating;
    uint64_t began;        /* of the message */
    uint32_t have;         /* octets in the buffer */
    unsigned char buffer[2 * MAX_PACKET];
};

static struct connection connections[MAX_CONNECTIONS];

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, errno ? strerror(errno) : "unexpected");
    exit(1);
}

static uint64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

static uint32_t number(const unsigned char *at) {
    uint32_t value;
    memcpy(&value, at, 4);
    return ntohl(value);
}

/* ---------------------------------------------------------------- the script */

static unsigned char *script, *script_end;

static uint32_t take_number(void) {
    if (script_end - script < 4) die("script too short");
    script += 4;
    return number(script - 4);
}

static struct octets take(void) {
    struct octets found = {take_number(), script};
    if ((uint32_t)(script_end - script) < found.length) die("script too short");
    script += found.length;
    return found;
}

static void take_message(struct message *message) {
    message->count = take_number();
    if (message->count < 1 || message->count > MAX_STEPS) die("steps of a message");
    for (uint32_t i = 0; i < message->count; i++) message->steps[i] = take();
}

static void read_script(const char *path) {
    FILE *file = fopen(path, "rb");
    long size;
    if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (size = ftell(file)) < 0) die(path);
    rewind(file);
    script = malloc((size_t)size);
    if (script == NULL || fread(script, 1, (size_t)size, file) != (size_t)size) die(path);
    fclose(file);
    script_end = script + size;
    negotiation = take();
    agreed = take();
    take_message(&first);
    take_message(&later);
    quit = take();
}

/* ---------------------------------------------------------------- packets */

static void address_of(const char *path, struct sockaddr_un *address) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address->sun_path) die("path of the socket too long");
    strcpy(address->sun_path, path);
}

static void put(int fd, struct octets what) {
    while (what.length > 0) {
        ssize_t done = send(fd, what.data, what.length, MSG_NOSIGNAL);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0 && errno == EPIPE) return; /* who reads next sees the end */
        if (done < 0) die("send");
        what.data += done;
        what.length -= (uint32_t)done;
    }
}

/* Read what is there; 0 at the end of the connection. */
static int fill(struct connection *c) {
    ssize_t got = recv(c->fd, c->buffer + c->have, sizeof c->buffer - c->have, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 1;
    if (got < 0 && errno != ECONNRESET) die("recv");
    if (got <= 0) return 0;
    c->have += (uint32_t)got;
    return 1;
}

/* The length of the packet at an offset with its length field; 0: it is not complete yet. */
static uint32_t packet_at(const struct connection *c, uint32_t at) {
    uint32_t length;
    if (c->have - at < 5) return 0;
    length = number(c->buffer + at);
    errno = 0;
    if (length < 1 || length > MAX_PACKET) die("length of a packet");
    return c->have - at >= 4 + length ? 4 + length : 0;
}

static void drop(struct connection *c, uint32_t length) {
    c->have -= length;
    memmove(c->buffer, c->buffer + length, c->have);
}

static void watch(int epoll, int fd, void *what) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
}

/* ---------------------------------------------------------------- send */

static uint64_t counted, all, opened, edits;
static uint64_t from, until; /* when messages are counted */
static uint32_t *latencies; /* in units of 10 ns: up to 42 s */

static void open_connection(struct connection *c, const struct sockaddr_un *address, int epoll) {
    memset(c, 0, offsetof(struct connection, buffer));
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket");
    if (connect(c->fd, (const struct sockaddr *)address, sizeof *address) != 0) die("connect");
    watch(epoll, c->fd, c);
    c->negotiating = 1;
    put(c->fd, negotiation);
    opened++;
}

static void begin_message(struct connection *c) {
    c->began = now();
    c->step = 0;
    put(c->fd, (c->sent++ == 0 ? &first : &later)->steps[0]);
}

/* A reply that the last step awaited: go on. Returns 1 at the end of the connection. */
static int go_on(struct connection *c, unsigned messages) {
    const struct message *message = c->sent == 1 ? &first : &later;
    uint64_t at;
    if (++c->step < message->count) {
        put(c->fd, message->steps[c->step]);
        return 0;
    }
    at = now();
    all++;
    if (counted == 0 && at >= until) until = at + 1;
    if (at >= from && at < until) {
        if (counted == MAX_LATENCIES) die("too many messages");
        latencies[counted++] = (uint32_t)((at - c->began) / 10);
    }
    if (c->sent < messages && at < until) {
        begin_message(c);
        return 0;
    }
    put(c->fd, quit);
    close(c->fd);
    return 1;
}

/* Take all packets that are there. Returns 1 at the end of the connection. */
static int take_packets(struct connection *c, unsigned messages) {
    uint32_t length;
    while ((length = packet_at(c, 0)) != 0) {
        unsigned char kind = c->buffer[4];
        if (c->negotiating) {
            errno = 0;
            if (length != agreed.length || memcmp(c->buffer, agreed.data, length) != 0)
                die("negotiation other than recorded");
            c->negotiating = 0;
            drop(c, length);
            begin_message(c);
            continue;
        }
        drop(c, length);
        if (kind == 'h' || kind == 'i' || kind == 'm') {
            edits++;
            continue;
        }
        errno = 0;
        if (kind != 'c') die("a reply other than CONTINUE");
        if (go_on(c, messages)) return 1;
    }
    return 0;
}

static int smaller(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double quantile_ms(double part) {
    if (counted == 0) return 0.0;
    return (double)latencies[(uint64_t)(part * (double)(counted - 1))] / 1e5;
}

static int send_all(const char *path, char **words) {
    struct sockaddr_un address;
    struct epoll_event events[MAX_CONNECTIONS];
    struct rusage usage;
    unsigned count = (unsigned)atoi(words[0]), open = count, messages = (unsigned)atoi(words[1]);
    double warmup = atof(words[2]), seconds = atof(words[3]);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    uint64_t start;

    if (count < 1 || count > MAX_CONNECTIONS || messages < 1) die("arguments");
    latencies = malloc(sizeof *latencies * MAX_LATENCIES);
    if (latencies == NULL || epoll < 0) die("start");
    address_of(path, &address);
    start = now();
    from = start + (uint64_t)(warmup * 1e9);
    until = from + (uint64_t)(seconds * 1e9);
    for (unsigned i = 0; i < count; i++) open_connection(&connections[i], &address, epoll);
    while (open > 0) {
        int ready = epoll_wait(epoll, events, MAX_CONNECTIONS, 100);
        if (ready < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (!fill(c)) {
                errno = 0;
                die("the milter closed a connection");
            }
            if (!take_packets(c, messages)) continue;
            if (now() < until) open_connection(c, &address, epoll);
            else open--;
        }
    }
    getrusage(RUSAGE_SELF, &usage);
    qsort(latencies, counted, sizeof *latencies, smaller);
    printf("{\"messages\": %llu, \"all\": %llu, \"seconds\": %.6f, \"connections\": %llu, \"edits\": %llu, "
           "\"p50_ms\": %.4f, \"p99_ms\": %.4f, \"max_ms\": %.4f, "
           "\"cpu_seconds\": %.6f, \"cpu_of_seconds\": %.6f}\n",
           (unsigned long long)counted, (unsigned long long)all, (double)(until - from) / 1e9,
           (unsigned long long)opened,
           (unsigned long long)edits, quantile_ms(0.5), quantile_ms(0.99), quantile_ms(1.0),
           (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
               + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6,
           (double)(now() - start) / 1e9);
    return 0;
}

/* ---------------------------------------------------------------- answer */

/* The commands that the milter of the script answers: by the flags that it agreed to. */
static int awaited(unsigned char command) {
    static const char commands[] = "LCHMRTUNB";
    static const int flags[] = {7, 12, 13, 14, 15, 16, 17, 18, 19};
    uint32_t protocol = number(agreed.data + 13); /* length, 'O', version, actions, protocol */
    const char *found = strchr(commands, command);
    if (command == 'E') return 1;
    return command != 0 && found != NULL && !(protocol >> flags[found - commands] & 1);
}

_Noreturn static void answer_all(const char *path) {
    static const unsigned char go_on_packet[] = {0, 0, 0, 1, 'c'};
    const struct octets reply = {sizeof go_on_packet, go_on_packet};
    struct sockaddr_un address;
    struct epoll_event events[MAX_CONNECTIONS];
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    address_of(path, &address);
    if (bind(listener, (const struct sockaddr *)&address, sizeof address) != 0) die("bind");
    if (listen(listener, 128) != 0) die("listen");
    watch(epoll, listener, NULL);
    for (;;) {
        int ready = epoll_wait(epoll, events, MAX_CONNECTIONS, -1);
        if (ready < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            uint32_t at = 0, length;
            if (c == NULL) {
                c = malloc(sizeof *c);
                if (c == NULL) die("malloc");
                c->have = 0;
                c->fd = accept(listener, NULL, NULL);
                if (c->fd < 0) die("accept");
                watch(epoll, c->fd, c);
                continue;
            }
            if (!fill(c)) {
                close(c->fd);
                free(c);
                continue;
            }
            for (; (length = packet_at(c, at)) != 0; at += length) {
                unsigned char command = c->buffer[at + 4];
                if (command == 'O') put(c->fd, agreed);
                else if (awaited(command)) put(c->fd, reply);
            }
            drop(c, at);
        }
    }
}

int main(int count, char **words) {
    if (count == 8 && strcmp(words[1], "send") == 0) {
        read_script(words[3]);
        return send_all(words[2], words + 4);
    }
    if (count == 4 && strcmp(words[1], "answer") == 0) {
        read_script(words[3]);
        answer_all(words[2]);
    }
    fprintf(stderr, "usage: load send SOCKET SCRIPT CONNECTIONS MESSAGES WARMUP SECONDS\n"
                    "       load answer SOCKET SCRIPT\n");
    return 2;
}
