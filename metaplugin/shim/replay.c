#include <errno.h>
#include <string.h>

#include "shim.h"

/* The next frame of a section's payload; its kind, 0 at the end or when it is malformed (c->bad). */
static uint32_t next_frame(struct cursor *c, struct cursor *frame) {
    if (!c->n) return 0;
    uint32_t kind = get_u32(c);
    struct blob body = get_blob(c);
    *frame = (struct cursor){body.p, body.n, false};
    return c->bad ? 0 : kind;
}

/* A section is a note, a namespace, and calls alone, each to its last byte: nothing of a half-read record is run. */
static bool is_readable(struct cursor c) {
    struct cursor frame;
    struct plugin plugin;
    int i = 0;
    for (; c.n; i++) {
        if (next_frame(&c, &frame) != (i == 0 ? NOTE : i == 1 ? NETNS : EXEC)) return false;
        if (i > 1 && !get_plugin(&frame, &plugin)) return false;
        if (i > 1) continue;
        get_blob(&frame);
        if (i == 1) get_u64(&frame), get_u64(&frame);
        if (frame.bad || frame.n) return false;
    }
    return i > 1;
}

/* Where the record's namespace is now; "" when it is gone: what is at its path may be another container's. */
static const char *present_netns(const struct call *call, struct cursor *frame, char path[PATH_MAX]) {
    struct blob recorded = get_blob(frame);
    uint64_t dev = get_u64(frame), inode = get_u64(frame);
    if (call->netns.state == NETNS_POD && call->netns.dev == dev && call->netns.inode == inode) return call->netns_path;
    if (frame->bad || !blob_text(recorded, path, PATH_MAX)) return "";
    struct netns now = netns_probe(path);
    return now.state == NETNS_POD && now.dev == dev && now.inode == inode ? path : "";
}

static void note_failure(struct buf *failures, const struct plugin *plugin, const struct plugin_end *end) {
    static const char *const words[] = {"exit status", "signal", "not there, errno", "not started, errno", "deadline passed, status",
                                        "too much output, status", "type refused, errno"};
    if (failures->n > 2000) return;
    buf_printf(failures, "%splugin %.*s: %s %u", failures->n ? "; " : "", (int)plugin->type.n, (const char *)plugin->type.p,
               words[end->outcome], end->status);
    if (end->out.n) buf_printf(failures, " %.*s", end->out.n < 300 ? (int)end->out.n : 300, (const char *)end->out.p);
}

/* The DEL calls of a section, all of them tried. */
static void run_calls(struct call *call, struct cursor c, struct buf *failures) {
    char path[PATH_MAX];
    const char *netns = "";
    struct cursor frame;
    for (uint32_t kind; (kind = next_frame(&c, &frame));) {
        struct plugin plugin;
        struct plugin_end end;
        if (kind == NETNS) netns = present_netns(call, &frame, path);
        if (kind != EXEC || !get_plugin(&frame, &plugin)) continue;
        plugin.netns = netns;
        plugin_run(call, &plugin, &end);
        if (end.outcome != EXITED || end.status) note_failure(failures, &plugin, &end);
        buf_free(&end.out), buf_free(&end.err);
    }
}

/* A DEL without a daemon: what the record says, in its order. The exit code. */
int replay(struct call *call) {
    char name[300];
    struct buf file = {0}, failures = {0};
    struct blob payload = {0};
    record_name(name, call->id, call->ifname);
    int error = record_load(call->conf.state_dir, name, &file, &payload);
    struct cursor section = {payload.p, payload.n, false};
    if (error == ENOENT) return 0; /* never added, or deleted before */
    if (error == EBADMSG || (!error && !is_readable(section)))
        return fail(call, TRY_AGAIN_LATER, "the metaplugin daemon %s, and the record %s/attachments/%s is damaged",
                    call->daemon.lost, call->conf.state_dir, name);
    if (error)
        return fail(call, TRY_AGAIN_LATER, "the metaplugin daemon %s, and the record %s/attachments/%s can't be read: %s",
                    call->daemon.lost, call->conf.state_dir, name, strerror(error));
    run_calls(call, section, &failures);
    if (failures.n)
        return fail(call, TRY_AGAIN_LATER, "the metaplugin daemon %s; its record's DEL failed: %.*s", call->daemon.lost,
                    (int)failures.n, (const char *)failures.p);
    error = record_forget(&call->conf, name);
    return error ? fail(call, IO_FAILURE, "the record %s can't be removed: %s", name, strerror(error)) : 0;
}
