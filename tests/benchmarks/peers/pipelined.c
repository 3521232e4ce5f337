/* The least that a server can do for a ticket, to see what the machine can: 16 threads in accept(), each with an SMTP
 * session of its own, every command of a transaction in one write. Hardly any check, and no way back from an error.
 *
 *     pipelined PORT SMTP-PORT SESSIONS */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ADMINISTRATOR "helpdesk@example.com"
#define LARGEST 262144

static int listening, smtp_port;
static long ticket = 10000;

struct session {
    int socket;
    size_t held;
    char buffer[8192];
};

static int connected(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, s = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(s, (struct sockaddr *)&address, sizeof address)) exit(69);
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return s;
}

/* Reads whole replies, so many of them; their last code. */
static int replies(struct session *session, int count) {
    int code = 0;
    for (;;) {
        char *end;
        while (session->held && (end = memchr(session->buffer, '\n', session->held))) {
            size_t length = end + 1 - session->buffer;
            int last = length > 3 && session->buffer[3] != '-';
            code = atoi(session->buffer);
            memmove(session->buffer, end + 1, session->held -= length);
            if (last && --count == 0) return code;
        }
        ssize_t got = recv(session->socket, session->buffer + session->held, sizeof session->buffer - session->held, 0);
        if (got <= 0) exit(74);
        session->held += got;
    }
}

static void say(struct session *session, const char *text, size_t length) {
    if (send(session->socket, text, length, MSG_NOSIGNAL) != (ssize_t)length) exit(74);
}

/* The string value of a key, unescaped as far as these requests need it; its length. */
static size_t value(char *json, const char *key, char *out) {
    char *from = strstr(json, key);
    size_t length = 0;
    if (!from || !(from = strchr(from + strlen(key), ':')) || !(from = strchr(from, '"'))) return 0;
    for (from++; *from && *from != '"'; from++) {
        if (*from == '\\' && *++from == 'n') out[length++] = '\r', out[length++] = '\n';
        else out[length++] = *from;
    }
    out[length] = 0;
    return length;
}

static size_t base64(const unsigned char *in, size_t length, char *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *start = out;
    for (size_t i = 0; i < length; i += 3) {
        unsigned bits = in[i] << 16 | (i + 1 < length ? in[i + 1] : 0) << 8 | (i + 2 < length ? in[i + 2] : 0);
        *out++ = digits[bits >> 18], *out++ = digits[bits >> 12 & 63];
        *out++ = i + 1 < length ? digits[bits >> 6 & 63] : '=', *out++ = i + 2 < length ? digits[bits & 63] : '=';
        if (i % 57 == 54 || i + 3 >= length) *out++ = '\r', *out++ = '\n';
    }
    return out - start;
}

static int deliver(struct session *session, long number, char *json, char *text, char *message) {
    char email[512], date[64], *end = message;
    size_t length;
    time_t now = time(NULL);
    struct tm utc;
    if (value(json, "\"email\"", text) >= sizeof email) return 0;
    strcpy(email, text);
    length = value(json, "\"message\"", text);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S +0000", gmtime_r(&now, &utc));
    if (session->socket < 0) {
        session->socket = connected(smtp_port);
        if (replies(session, 1) != 220) return 0;
        say(session, "EHLO localhost\r\n", 16);
        if (replies(session, 1) != 250) return 0;
    }
    end += sprintf(end, "MAIL FROM:<" ADMINISTRATOR ">\r\nRCPT TO:<%s>\r\nRCPT TO:<" ADMINISTRATOR ">\r\nDATA\r\n", email);
    say(session, message, end - message);
    if (replies(session, 4) != 354) return 0;
    end = message + sprintf(message, "From: " ADMINISTRATOR "\r\nTo: %s\r\nCc: " ADMINISTRATOR
        "\r\nSubject: [Ticket #%ld] Mailer\r\nDate: %s\r\nMessage-ID: <ticket.%ld.%lx@example.com>\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n",
        email, number, date, number, random());
    end += base64((unsigned char *)text, length, end);
    memcpy(end, ".\r\n", 3);
    say(session, message, end + 3 - message);
    return replies(session, 1) == 250;
}

static void *worker(void *unused) {
    struct session session = {.socket = -1};
    char *json = malloc(LARGEST + 1), *text = malloc(LARGEST), *message = malloc(2 * LARGEST), reply[128];
    for (;;) {
        int s = accept(listening, NULL, NULL);
        size_t got = 0;
        for (ssize_t n; s >= 0 && (n = recv(s, json + got, LARGEST - got, 0)) > 0;) {
            got += n;
            size_t length = got < 4 ? LARGEST : 4 + ((size_t)(unsigned char)json[1] << 16) + ((unsigned char)json[2] << 8) + (unsigned char)json[3];
            if (got < length) continue;
            json[got] = 0;
            long number = __sync_add_and_fetch(&ticket, 1);
            int ok = deliver(&session, number, json + 4, text, message);
            int size = sprintf(reply + 4, ok ? "{\"status\":\"OK\",\"ticket\":%ld}" : "{\"status\":\"ERROR\"}", number);
            memcpy(reply, (char[]){0, 0, 0, (char)size}, 4);
            send(s, reply, 4 + size, MSG_NOSIGNAL);
            got = 0;
        }
        close(s);
    }
    return unused;
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    int one = 1, threads = argc == 4 ? atoi(argv[3]) : 0;
    if (!threads) return 64;
    smtp_port = atoi(argv[2]);
    listening = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    address.sin_port = htons(atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listening, (struct sockaddr *)&address, sizeof address) || listen(listening, 1024)) return 69;
    for (int i = 1; i < threads; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, worker, NULL);
    }
    worker(NULL);
    return 0;
}
