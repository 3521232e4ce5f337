/* The load of the server comparison: CLIENTS threads, each of which connects, sends one request, reads the reply and
 * closes, again and again for SECONDS.
 *
 *     load PORT CLIENTS SECONDS FRAME-FILE ID-OFFSET NUMBER-OFFSET
 *
 * The frame file holds one whole request; 16 characters of its id and 6 digits of its address are overwritten, so that
 * no two requests are alike. Prints: answered, errors, seconds, p50, p99 and longest in milliseconds. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define MOST 4000000

static int port, id_offset, number_offset;
static double until;
static char frame[65536];
static size_t frame_length;
static float *latencies;
static long answered, errors;
static unsigned run_mark;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int ask(const char *request, unsigned long serial) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval patience = {.tv_sec = 20};
    char reply[4096];
    size_t got = 0;
    int ok = 0, s = socket(AF_INET, SOCK_STREAM, 0);
    if (s < 0) return 0;
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
#ifdef __linux__ /* many source addresses, so that the ports do not run out */
    struct sockaddr_in source = {.sin_family = AF_INET};
    int one = 1;
    source.sin_addr.s_addr = htonl(0x7f000001 + (serial % 32));
    setsockopt(s, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, &one, sizeof one);
    bind(s, (struct sockaddr *)&source, sizeof source);
#endif
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(s, (struct sockaddr *)&address, sizeof address) == 0 &&
        send(s, request, frame_length, MSG_NOSIGNAL) == (ssize_t)frame_length) {
        ssize_t n;
        while ((n = recv(s, reply + got, sizeof reply - got, 0)) > 0) {
            got += n;
            if (got >= 4 && got >= 4 + ((unsigned char)reply[2] * 256u + (unsigned char)reply[3])) {
                reply[got < sizeof reply ? got : sizeof reply - 1] = 0;
                ok = memmem(reply + 4, got - 4, "\"OK\"", 4) != NULL;
                break;
            }
        }
    }
    close(s);
    return ok;
}

static void *client(void *argument) {
    unsigned long serial = (unsigned long)argument * 10000019ul;
    char request[sizeof frame], text[32];
    memcpy(request, frame, frame_length);
    for (double begun; (begun = now()) < until; serial++) {
        snprintf(text, sizeof text, "%08x%08lx", run_mark, serial & 0xfffffffful);
        memcpy(request + id_offset, text, 16);
        snprintf(text, sizeof text, "%06lu", serial % 1000000ul);
        memcpy(request + number_offset, text, 6);
        if (ask(request, serial)) {
            long place = __sync_fetch_and_add(&answered, 1);
            if (place < MOST) latencies[place] = (now() - begun) * 1000;
        } else
            __sync_fetch_and_add(&errors, 1);
    }
    return NULL;
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 7) return 64;
    int clients = atoi(argv[2]);
    FILE *file = fopen(argv[4], "rb");
    if (!file || clients > 1024) return 66;
    frame_length = fread(frame, 1, sizeof frame, file);
    port = atoi(argv[1]), id_offset = atoi(argv[5]), number_offset = atoi(argv[6]);
    latencies = malloc(MOST * sizeof *latencies);
    run_mark = (unsigned)time(NULL) * 2654435761u ^ (unsigned)getpid();
    pthread_t threads[1024];
    double begun = now();
    until = begun + atof(argv[3]);
    for (long i = 0; i < clients; i++) pthread_create(&threads[i], NULL, client, (void *)i);
    for (long i = 0; i < clients; i++) pthread_join(threads[i], NULL);
    double seconds = now() - begun;
    long kept = answered < MOST ? answered : MOST;
    qsort(latencies, kept, sizeof *latencies, ascending);
    printf("%ld %ld %.6f %.4f %.4f %.4f\n", answered, errors, seconds, kept ? latencies[kept / 2] : 0,
           kept ? latencies[(long)(kept * 0.99)] : 0, kept ? latencies[kept - 1] : 0);
    return 0;
}
