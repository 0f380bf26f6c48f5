#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shim.h"

/* Decodes the string that begins behind the quote at `at` as far as a version, key or folder needs it; returns the index of
 * its closing quote. Whatever is not plain ASCII becomes '?', which none of them contains, and so does the start of a long one. */
static size_t scan_string(struct blob in, size_t at, char *text, size_t size) {
    size_t n = 0;
    for (; at < in.n && in.p[at] != '"'; at++) {
        unsigned c = in.p[at];
        if (c == '\\') {
            unsigned code = 0;
            char digits[5] = {0};
            if (++at < in.n && in.p[at] == 'u' && in.n - at > 4) {
                memcpy(digits, in.p + at + 1, 4);
                if (sscanf(digits, "%4x", &code) == 1) at += 4;
                c = code;
            } else {
                c = at < in.n && in.p[at] == '/' ? '/' : '?';
            }
        }
        if (n + 1 < size) text[n++] = c > 0x1f && c < 0x7f ? (char)c : '?';
        else text[0] = '?';
    }
    text[n] = 0;
    return at;
}

/* The value of a key at the top level (the last one, as JSON decoders have it) as it is written; empty when there is none. */
static struct blob scan_value(const struct buf *input, const char *key) {
    size_t at = 0, depth = 0, start = 0; /* start: of the value of the key that is sought, 0 outside */
    bool expect_key = true, found = false;
    char text[65];
    struct blob all = {input->p, input->n}, value = {0};
    while (at < all.n && memchr(" \t\r\n", all.p[at], 4)) at++;
    if (at == all.n || all.p[at] != '{') return value;
    for (; at <= all.n; at++) {
        unsigned char c = at < all.n ? all.p[at] : '}'; /* what is cut off has a version, too */
        if (depth == 1 && start && (c == ',' || c == '}')) {
            for (; start < at && memchr(" \t\r\n", all.p[start], 4); start++) continue;
            value = (struct blob){all.p + start, at - start};
            start = 0;
        }
        if (c == '"') {
            at = scan_string(all, at + 1, text, sizeof text);
            if (depth == 1 && expect_key) found = !strcmp(text, key);
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (!--depth) break;
        } else if (depth == 1 && c == ',') {
            expect_key = true;
        } else if (depth == 1 && c == ':' && expect_key) {
            expect_key = false;
            start = found ? at + 1 : 0;
        }
    }
    return value;
}

/* The text at the top level's key, "" when there is none; '?' in it stands for what can't be told. */
void scan_text(const struct buf *input, const char *key, char *text, size_t size) {
    struct blob value = scan_value(input, key);
    bool is_text = value.n && *value.p == '"' && scan_string(value, 1, text, size) < value.n;
    if (!is_text) text[0] = 0;
}

void scan_version(const struct buf *input, char version[65]) {
    static const char allowed[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.+-_";
    scan_text(input, "cniVersion", version, 65);
    if (version[strspn(version, allowed)]) version[0] = 0;
}

/* As the plugin `passthru`: the result of an ADD is that of the plugin before, or an empty one. The exit code. */
int pass_through(struct call *call) {
    int failed = read_input(call);
    if (failed || call->command != ADD) return failed;
    struct blob result = scan_value(&call->input, "prevResult");
    struct buf empty = {0};
    buf_printf(&empty, "{\"cniVersion\":\"%s\"}", call->version[0] ? call->version : "0.1.0");
    if (!result.n || *result.p != '{') result = (struct blob){empty.p, empty.n};
    return print_answer(result.p, result.n, 10000) ? 1 : 0;
}

/* The length of the valid UTF-8 character at p, 0 if there is none. */
static size_t utf8_length(const unsigned char *p, size_t n) {
    size_t length = *p < 0x80 ? 1 : *p < 0xC2 ? 0 : *p < 0xE0 ? 2 : *p < 0xF0 ? 3 : *p < 0xF5 ? 4 : 0;
    if (length > n) return 0;
    for (size_t i = 1; i < length; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    if ((*p == 0xE0 && p[1] < 0xA0) || (*p == 0xED && p[1] > 0x9F)) return 0;
    if ((*p == 0xF0 && p[1] < 0x90) || (*p == 0xF4 && p[1] > 0x8F)) return 0;
    return length;
}

static void add_json_string(struct buf *b, const void *text, size_t n) {
    const unsigned char *p = text, *end = p + n;
    buf_add(b, "\"", 1);
    while (p < end) {
        size_t length = utf8_length(p, end - p);
        if (!length) buf_add(b, "\\ufffd", 6);
        else if (*p == '"' || *p == '\\') buf_printf(b, "\\%c", *p);
        else if (*p < 0x20 || *p == 0x7f) buf_printf(b, "\\u%04x", *p);
        else buf_add(b, p, length);
        p += length ? length : 1;
    }
    buf_add(b, "\"", 1);
}

/* Writes everything to stdout; the errno when that fails, also when nobody reads for patience_ms. */
int print_answer(const void *p, size_t n, int patience_ms) {
    const char *at = p, *end = at + n;
    while (at < end) {
        struct pollfd out = {.fd = 1, .events = POLLOUT};
        int ready = poll(&out, 1, patience_ms);
        if (ready < 0 && errno == EINTR) continue;
        if (ready < 1) return ready ? errno : ETIMEDOUT;
        /* PIPE_BUF at once: after POLLOUT that much never blocks */
        ssize_t written = write(1, at, end - at < PIPE_BUF ? end - at : PIPE_BUF);
        if (written < 0 && errno != EINTR && errno != EAGAIN) return errno;
        if (written > 0) at += written;
    }
    return 0;
}

int print_version(const char *version) {
    struct buf b = {0};
    buf_printf(&b, "{\"cniVersion\":");
    add_json_string(&b, version, strlen(version));
    buf_printf(&b, ",\"supportedVersions\":"
                   "[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n");
    return print_answer(b.p, b.n, 10000) ? 1 : 0;
}

/* containerd takes a DEL whose error holds such words for a success, and the sandbox would leak: a hyphen breaks them. */
static void break_words(struct buf *text) {
    static const char *const words[] = {"not found", "no such file or directory"};
    buf_add(text, "", 1);
    for (int i = 0; i < 2; i++)
        for (char *at = (char *)text->p; (at = strstr(at, words[i])); at++) *strchr(at, ' ') = '-';
    text->n--;
}

/* Prints the error object (CNI specification, section 5); returns the exit code. */
int fail(const struct call *call, int code, const char *format, ...) {
    struct buf message = {0}, b = {0};
    va_list args;
    va_start(args, format);
    buf_vprintf(&message, format, args);
    va_end(args);
    if (call->command == DEL) break_words(&message);
    const char *version = call->version[0] ? call->version : "1.1.0";
    buf_printf(&b, "{\"cniVersion\":");
    add_json_string(&b, version, strlen(version));
    buf_printf(&b, ",\"code\":%d,\"msg\":", code);
    add_json_string(&b, message.p, message.n);
    buf_printf(&b, "}\n");
    print_answer(b.p, b.n, 10000);
    buf_free(&message);
    buf_free(&b);
    return 1;
}
