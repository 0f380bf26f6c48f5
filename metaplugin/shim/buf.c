#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "shim.h"

long long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static void reserve(struct buf *b, size_t more) {
    static const char message[] = "{\"cniVersion\":\"1.1.0\",\"code\":5,\"msg\":\"the shim is out of memory\"}\n";
    if (b->cap - b->n >= more) return;
    size_t cap = b->cap * 2 > b->n + more ? b->cap * 2 : b->n + more;
    unsigned char *p = realloc(b->p, cap);
    if (!p) _exit(write(1, message, sizeof message - 1) < 0 ? 2 : 1);
    b->p = p;
    b->cap = cap;
}

void buf_add(struct buf *b, const void *p, size_t n) {
    if (!n) return;
    reserve(b, n);
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

void buf_u32(struct buf *b, uint32_t v) {
    buf_add(b, (unsigned char[]){v >> 24, v >> 16, v >> 8, v}, 4);
}

void buf_u64(struct buf *b, uint64_t v) {
    buf_u32(b, v >> 32);
    buf_u32(b, v);
}

void buf_blob(struct buf *b, const void *p, size_t n) {
    buf_u32(b, n);
    buf_add(b, p, n);
}

void buf_vprintf(struct buf *b, const char *format, va_list args) {
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    if (n >= 0) {
        reserve(b, n + 1);
        vsnprintf((char *)b->p + b->n, n + 1, format, again);
        b->n += n;
    }
    va_end(again);
}

void buf_printf(struct buf *b, const char *format, ...) {
    va_list args;
    va_start(args, format);
    buf_vprintf(b, format, args);
    va_end(args);
}

void buf_free(struct buf *b) {
    free(b->p);
    *b = (struct buf){0};
}

static const unsigned char *take(struct cursor *c, size_t n) {
    if (c->bad || c->n < n) {
        c->bad = true;
        return NULL;
    }
    c->n -= n;
    c->p += n;
    return c->p - n;
}

uint32_t get_u32(struct cursor *c) {
    const unsigned char *p = take(c, 4);
    return p ? (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3] : 0;
}

uint64_t get_u64(struct cursor *c) {
    uint64_t high = get_u32(c);
    return high << 32 | get_u32(c);
}

struct blob get_blob(struct cursor *c) {
    uint32_t n = get_u32(c);
    const unsigned char *p = take(c, n);
    return (struct blob){p, p ? n : 0};
}

/* False when the blob holds a NUL or doesn't fit. */
bool blob_text(struct blob b, char *text, size_t size) {
    if (b.n >= size || (b.n && memchr(b.p, 0, b.n))) return false;
    if (b.n) memcpy(text, b.p, b.n);
    text[b.n] = 0;
    return true;
}

/* Whole NUL-ended CNI_*=value entries, without CNI_PATH: a daemon must not choose LD_PRELOAD, PATH or the search path. */
bool environment_is_valid(struct blob b) {
    while (b.n) {
        const unsigned char *end = memchr(b.p, 0, b.n);
        const char *entry = (const char *)b.p;
        if (!end || strncmp(entry, "CNI_", 4) || !strncmp(entry, "CNI_PATH=", 9) || !strchr(entry, '=')) return false;
        b.n -= end + 1 - b.p;
        b.p = end + 1;
    }
    return true;
}

/* Reads an EXEC frame's payload, from the daemon or from a record. */
bool get_plugin(struct cursor *c, struct plugin *plugin) {
    *plugin = (struct plugin){.deadline_ms = get_u32(c)};
    plugin->type = get_blob(c);
    plugin->environment = get_blob(c);
    plugin->input = get_blob(c);
    return !c->bad && !c->n && plugin->input.n <= INPUT_LIMIT && environment_is_valid(plugin->environment);
}

/* zlib's crc32. */
uint32_t crc32_of(const unsigned char *p, size_t n) {
    uint32_t table[256], crc = ~0u;
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++) table[i] = table[i] & 1 ? table[i] >> 1 ^ 0xEDB88320u : table[i] >> 1;
    }
    while (n--) crc = table[(crc ^ *p++) & 255] ^ crc >> 8;
    return ~crc;
}
