/* The shim: the CNI executable. It carries a request to the metaplugin daemon, runs the delegates that the daemon
 * names in the runtime's own context, and prints the daemon's answer. libc only: it is exec'd for every pod. */
#pragma once

#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    INPUT_LIMIT = 16 << 20,   /* stdin, and a delegate's stdout */
    PAYLOAD_LIMIT = 48 << 20, /* one frame */
    RECORD_LIMIT = 64 << 20,
    STDERR_KEPT = 64 << 10, /* the tail of a delegate's stderr that the daemon gets */
    NAME_LIMIT = 250,       /* of a record: leaves room for the prefix of its temporary file */
    LEND_LIMIT_S = 60,
    FALLBACKS = 16, /* at once, on a node */
};

enum code { /* CNI specification 1.1.0, section 5 */
    INVALID_ENVIRONMENT = 4,
    IO_FAILURE = 5,
    DECODING_FAILURE = 6,
    INVALID_CONFIG = 7,
    TRY_AGAIN_LATER = 11,
    NOT_AVAILABLE = 50,
};

enum command { NO_COMMAND, ADD, DEL, CHECK, GC, STATUS, VERSION };

enum kind {
    HELLO = 1, REQUEST, EXEC, EXECUTED, FIND, FOUND, STAT, STATED, SAVE, SAVED, APPEND, FORGET, LOCK, LOCKED, ALIVE,
    LEND, ANSWER, ANSWERED, NOTE = 32, NETNS,
};

enum outcome { EXITED, SIGNALLED, NOT_FOUND, NOT_STARTED, TOO_LATE, TOO_MUCH_OUTPUT, TYPE_REFUSED };

enum netns_state { NETNS_NONE, NETNS_POD, NETNS_MISSING, NETNS_OTHER_FILE, NETNS_HOST, NETNS_UNREADABLE };

struct buf { unsigned char *p; size_t n, cap; };
struct blob { const unsigned char *p; size_t n; };
struct cursor { const unsigned char *p; size_t n; bool bad; }; /* bad: something read was not there */
struct netns { uint32_t state; int error; uint64_t dev, inode; };
struct lock { int folder, fd; char name[256]; };

struct conf {
    char *run_dir, *state_dir, *plugin_dirs, *fallback, *fallback_config, *device_info_dir;
    int add_wait_ms, del_wait_ms, status_wait_ms, lock_wait_ms, silence_ms;
};

struct link { /* the connection to the daemon; fd -1 when there is none */
    int fd, silence_ms;
    long long last_sign;
    unsigned char header[8];
    size_t header_n;
    struct buf body;
    uint32_t kind; /* of the frame whose body is whole */
    char lost[512]; /* what happened to the daemon, for the error's message */
};

struct call { /* one request of the runtime */
    enum command command;
    const char *id, *ifname, *netns_path;
    char *search_path;
    char version[65];
    struct conf conf;
    struct buf input, notes;
    struct netns netns;
    int netlink, run_dir;
    uint32_t lend_s;
    bool answered;
    struct lock sandbox, other; /* other: taken for the daemon by a LOCK frame */
    struct link daemon;
};

struct plugin { uint32_t deadline_ms; struct blob type, environment, input; const char *netns; };
struct plugin_end { uint32_t outcome, status; struct buf out, err; };

/* buf.c: bytes in and out */
long long now_ms(void);
void buf_add(struct buf *b, const void *p, size_t n);
void buf_u32(struct buf *b, uint32_t v);
void buf_u64(struct buf *b, uint64_t v);
void buf_blob(struct buf *b, const void *p, size_t n);
void buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *b, const char *format, va_list args);
void buf_free(struct buf *b);
uint32_t get_u32(struct cursor *c);
uint64_t get_u64(struct cursor *c);
struct blob get_blob(struct cursor *c);
bool blob_text(struct blob b, char *text, size_t size);
bool environment_is_valid(struct blob b);
bool get_plugin(struct cursor *c, struct plugin *plugin);
uint32_t crc32_of(const unsigned char *p, size_t n);

/* answer.c: what goes to stdout */
void scan_text(const struct buf *input, const char *key, char *text, size_t size);
void scan_version(const struct buf *input, char version[65]);
int pass_through(struct call *call);
int print_answer(const void *p, size_t n, int patience_ms);
int print_version(const char *version);
int fail(const struct call *call, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* environment.c: what the runtime gave */
int read_environment(struct call *call);
int read_input(struct call *call);
void peek_input(struct call *call);
bool id_is_valid(const char *id);
int read_conf(struct call *call);

/* netns.c */
struct netns netns_probe(const char *path);
int netns_open_netlink(const char *path, const struct netns *expected, bool *stranded);

/* lock.c */
int make_folders(const char *path);
int open_run_dir(const char *path, char *why, size_t size);
void lock_name(char name[256], const char *id);
int lock_take(struct lock *lock, const char *id, int wait_ms);
void lock_drop(struct lock *lock);

/* record.c: the daemon's durable records */
void record_name(char name[300], const char *id, const char *ifname);
int record_save(const char *state_dir, const char *name, struct blob content);
void record_drop_unfinished(const char *state_dir, const char *name);
int record_append(const char *state_dir, const char *name, struct blob content);
int record_forget(const struct conf *conf, const char *name);
int record_load(const char *state_dir, const char *name, struct buf *file, struct blob *payload);

/* plugin.c: finding and running a delegate */
int plugin_find(const char *search_path, struct blob type, char path[PATH_MAX]);
int plugin_run(struct call *call, const struct plugin *plugin, struct plugin_end *end);

/* daemon.c: the conversation */
int daemon_connect(struct call *call, int wait_ms);
int daemon_fall_back(struct call *call);
int daemon_pump(struct link *link);
int daemon_send(struct link *link, uint32_t kind, const struct buf *body, int descriptor);
int daemon_lost(struct link *link, const char *format, ...) __attribute__((format(printf, 2, 3)));
int daemon_serve(struct call *call);
void daemon_lend(struct call *call);

/* replay.c */
int replay(struct call *call);
