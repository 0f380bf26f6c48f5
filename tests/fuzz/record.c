/* A record's file under replay: bit 0 of the first byte asks for right magics, lengths and checksums; the rest is the file. */
#define _GNU_SOURCE
#include <string.h>
#include <unistd.h>

#include "harness.h"

enum { MENDED = 1 };

static void put_u32(unsigned char *p, uint32_t v) {
    p[0] = v >> 24, p[1] = v >> 16, p[2] = v >> 8, p[3] = v;
}

static uint32_t u32_at(const unsigned char *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* A fuzzer can't guess checksums. */
static void mend(unsigned char *p, size_t n) {
    while (n >= 12) {
        uint32_t size = u32_at(p + 4) < n - 12 ? u32_at(p + 4) : n - 12;
        memcpy(p, "MPR1", 4);
        put_u32(p + 4, size);
        put_u32(p + 8, crc32_of(p + 12, size));
        p += 12 + size, n -= 12 + size;
    }
}

/* The last whole section, found in another way than the shim's: the payload's bounds, p NULL when there is none. */
static struct blob last_section(const unsigned char *p, size_t n) {
    struct blob last = {0};
    for (size_t at = 0; at + 12 <= n;) {
        size_t size = u32_at(p + at + 4), end = at + 12 + size;
        if (memcmp(p + at, "MPR1", 4) || !size || end > n || crc32_of(p + at + 12, size) != u32_at(p + at + 8)) break;
        last = (struct blob){p + at + 12, size};
        at = end;
    }
    return last;
}

/* How many DEL calls the section holds, -1 unless it is a note, a namespace, and then calls alone. */
static int count_calls(struct blob b) {
    int frames = 0;
    for (; b.n; frames++) {
        if (b.n < 8 || u32_at(b.p + 4) > b.n - 8) return -1;
        uint32_t kind = u32_at(b.p), size = u32_at(b.p + 4);
        if (kind != (frames == 0 ? NOTE : frames == 1 ? NETNS : EXEC)) return -1;
        b.p += 8 + size, b.n -= 8 + size;
    }
    return frames < 2 ? -1 : frames - 2;
}

int fuzz_record(const unsigned char *p, size_t n) {
    static unsigned char content[60000];
    if (!n || n > sizeof content) return 0;
    bool mended = p[0] & MENDED;
    memcpy(content, p + 1, --n);
    if (mended) mend(content, n);
    world_begin();
    world.emulate = true;
    struct call call = new_call(DEL);
    must(record_load(world.state, "c1@eth0", &call.input, &(struct blob){0}) != 0, "there is no record yet");
    world_write(world.record, content, n);
    strcpy(call.daemon.lost, "is a fuzzer");
    int exit_code = replay(&call);
    struct buf out = world_stdout();
    struct blob section = last_section(content, n);
    int calls = section.p ? count_calls(section) : -1;
    must(exit_code == 0 || exit_code == 1, "exit codes are 0 and 1");
    if (exit_code) must_be_error_object(out, TRY_AGAIN_LATER, IO_FAILURE);
    else must(!out.n && calls >= 0 && world.runs == calls && world.succeeded == calls, "success is every DEL of a whole section");
    must(calls >= 0 || !world.runs, "nothing of a damaged record is run");
    must(!access(exit_code ? world.record : world.tombstone, F_OK), "a record stays until its DEL has succeeded");
    buf_free(&out);
    end_call(&call);
    world_end();
    return 0;
}
