#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shim.h"

/* Ends the connection and remembers why; -1. */
int daemon_lost(struct link *link, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(link->lost, sizeof link->lost, format, args);
    va_end(args);
    if (link->fd >= 0) close(link->fd);
    link->fd = -1;
    return -1;
}

/* Reads what is there: 1 when a frame other than ALIVE is whole (kind, body), 0 when not yet, -1 when the daemon is lost. */
int daemon_pump(struct link *link) {
    for (;;) {
        bool in_header = link->header_n < 8;
        struct cursor c = {link->header, 8, false};
        uint32_t kind = get_u32(&c), size = get_u32(&c);
        if (!in_header && link->body.n == size) {
            link->header_n = 0;
            link->kind = kind;
            if (kind != ALIVE) return 1;
            if (size) return daemon_lost(link, "sent a malformed frame");
            continue;
        }
        unsigned char chunk[65536];
        size_t want = in_header ? 8 - link->header_n : size - link->body.n;
        ssize_t n = recv(link->fd, chunk, want < sizeof chunk ? want : sizeof chunk, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return 0;
        if (n <= 0) return daemon_lost(link, "closed the connection%s%s", n ? ": " : "", n ? strerror(errno) : "");
        link->last_sign = now_ms();
        if (!in_header) {
            buf_add(&link->body, chunk, n);
            continue;
        }
        memcpy(link->header + link->header_n, chunk, n);
        link->header_n += n;
        link->body.n = 0;
        c = (struct cursor){link->header + 4, 4, false};
        if (link->header_n == 8 && get_u32(&c) > PAYLOAD_LIMIT) return daemon_lost(link, "sent a frame over the limit");
    }
}

/* Waits until the daemon has sent a frame; -1 when it is lost, also by silence. */
static int receive(struct link *link) {
    int got;
    while (!(got = daemon_pump(link))) {
        struct pollfd in = {.fd = link->fd, .events = POLLIN};
        long long left = link->last_sign + link->silence_ms - now_ms();
        if (left <= 0) return daemon_lost(link, "gave no sign of life for %d ms (silence_ms)", link->silence_ms);
        poll(&in, 1, (int)left);
    }
    return got;
}

/* Sends a frame, a descriptor (or -1) with its first byte. */
int daemon_send(struct link *link, uint32_t kind, const struct buf *body, int descriptor) {
    struct buf frame = {0};
    char control[CMSG_SPACE(sizeof(int))] = {0};
    long long patience = now_ms() + link->silence_ms;
    buf_u32(&frame, kind);
    buf_blob(&frame, body->p, body->n);
    for (size_t at = 0; at < frame.n && link->fd >= 0;) {
        struct iovec piece = {frame.p + at, frame.n - at};
        struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
        if (descriptor >= 0 && at == 0) {
            message.msg_control = control;
            message.msg_controllen = sizeof control;
            struct cmsghdr *c = CMSG_FIRSTHDR(&message);
            c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int));
            memcpy(CMSG_DATA(c), &descriptor, sizeof(int));
        }
        struct pollfd out = {.fd = link->fd, .events = POLLOUT};
        ssize_t n = sendmsg(link->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) at += n;
        else if (n < 0 && errno != EAGAIN && errno != EINTR) daemon_lost(link, "can't be written to: %s", strerror(errno));
        else if (now_ms() > patience) daemon_lost(link, "reads nothing");
        else poll(&out, 1, 100);
    }
    buf_free(&frame);
    return link->fd < 0 ? -1 : 0;
}

/* The first frame: a greeting with a version that we speak; -1 with the reason. */
static int await_greeting(struct link *link, long long until) {
    link->header_n = 0;
    link->last_sign = now_ms();
    int full = link->silence_ms, left = (int)(until - now_ms());
    link->silence_ms = left > 0 ? left : 0;
    int got = receive(link);
    link->silence_ms = full;
    if (got < 0) return -1;
    struct cursor c = {link->body.p, link->body.n, false};
    uint32_t minimum = get_u32(&c), maximum = get_u32(&c);
    if (link->kind != HELLO || c.bad || c.n) return daemon_lost(link, "didn't greet as a metaplugin daemon does");
    if (minimum > 1 || maximum < 1)
        return daemon_lost(link, "speaks protocol versions %u to %u, this shim speaks 1", minimum, maximum);
    return 0;
}

/* One attempt: connected, peer root, greeted with a version that we speak; -1 with the reason. */
static int greet(struct call *call, long long until) {
    struct link *link = &call->daemon;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct ucred peer;
    socklen_t size = sizeof peer;
    /* by the folder's descriptor, which was checked; also, a socket's path may have 107 bytes only */
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/daemon.sock", call->run_dir);
    link->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (link->fd < 0 || connect(link->fd, (struct sockaddr *)&address, sizeof address))
        return daemon_lost(link, "can't be reached: %s", strerror(errno));
    if (getsockopt(link->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) || peer.uid != 0)
        return daemon_lost(link, "doesn't run as root");
    return await_greeting(link, until);
}

/* Connects, again and again within the wait: the daemon may be restarting. 0, or -1 with the reason of the last try. */
int daemon_connect(struct call *call, int wait_ms) {
    long long until = now_ms() + wait_ms;
    do {
        if (!greet(call, until)) return 0;
        if (now_ms() + 50 < until) usleep(50000);
    } while (now_ms() + 50 < until);
    return -1;
}

/* Starts the same program's standalone form with a socket of its own, in place of a daemon that is away. 0, or -1 with the reason. */
int daemon_fall_back(struct call *call) {
    struct link *link = &call->daemon;
    int pair[2], null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    char descriptor[16];
    const char *program = call->conf.fallback;
    if (null < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) return daemon_lost(link, "can't be replaced: %s", strerror(errno));
    pid_t parent = getpid(), pid = fork();
    if (!pid) {
        sigset_t none;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        fcntl(pair[1], F_SETFD, 0);
        snprintf(descriptor, sizeof descriptor, "%d", pair[1]);
        if (getppid() == parent && dup2(null, 0) == 0 && dup2(2, 1) == 1)
            execl(program, program, "standalone", "--config", call->conf.fallback_config, "--descriptor", descriptor, NULL);
        dprintf(2, "metaplugin: %s: %s\n", program, strerror(errno));
        _exit(127);
    }
    close(null);
    close(pair[1]);
    link->fd = pair[0];
    link->last_sign = now_ms();
    return pid < 0 ? daemon_lost(link, "can't be replaced: %s", strerror(errno)) : await_greeting(link, now_ms() + link->silence_ms);
}

static bool valid_record_name(struct blob b, char name[NAME_LIMIT + 1]) {
    return blob_text(b, name, NAME_LIMIT + 1) && *name && *name != '.' && !strchr(name, '/');
}

static void keep_record(struct call *call, struct cursor *c, struct buf *reply) {
    char name[NAME_LIMIT + 1];
    const char *state = call->conf.state_dir;
    struct blob record = get_blob(c), content = call->daemon.kind == FORGET ? (struct blob){0} : get_blob(c);
    int error = EINVAL;
    if (c->bad || !valid_record_name(record, name)) error = EINVAL;
    else if (call->daemon.kind == SAVE) error = record_save(state, name, content);
    else if (call->daemon.kind == APPEND) error = record_append(state, name, content);
    else error = record_forget(&call->conf, name);
    buf_u32(reply, error);
}

static void run_plugin(struct call *call, struct cursor *c, struct buf *reply) {
    struct plugin plugin;
    struct plugin_end end = {0};
    struct buf request = call->daemon.body; /* kept from the pump, which goes on while the plugin runs */
    call->daemon.body = (struct buf){0};
    if (!get_plugin(c, &plugin)) daemon_lost(&call->daemon, "sent a malformed frame");
    else if (!plugin_run(call, &plugin, &end)) {
        buf_u32(reply, end.outcome);
        buf_u32(reply, end.status);
        buf_blob(reply, end.out.p, end.out.n);
        buf_blob(reply, end.err.p, end.err.n);
    }
    c->n = 0;
    buf_free(&end.out);
    buf_free(&end.err);
    buf_free(&request);
}

static void find_plugin(struct call *call, struct cursor *c, struct buf *reply) {
    char path[PATH_MAX] = "";
    int error = plugin_find(call->search_path, get_blob(c), path);
    buf_u32(reply, error);
    buf_blob(reply, path, error ? 0 : strlen(path));
}

static void stat_path(struct cursor *c, struct buf *reply) {
    char path[PATH_MAX];
    struct netns found = {.state = NETNS_UNREADABLE, .error = EINVAL};
    if (blob_text(get_blob(c), path, sizeof path)) found = netns_probe(path);
    buf_u32(reply, found.error);
    buf_u32(reply, found.state);
    buf_u64(reply, found.dev);
    buf_u64(reply, found.inode);
}

static void lock_other(struct call *call, struct cursor *c, struct buf *reply) {
    static char id[65536];
    struct blob given = get_blob(c);
    int error = EINVAL;
    lock_drop(&call->other);
    if (!given.n) error = 0;
    else if (blob_text(given, id, sizeof id) && id_is_valid(id)) error = lock_take(&call->other, id, 0);
    buf_u32(reply, error);
}

/* Answers one frame; the kind of the reply, 0 when there is none to give. */
static uint32_t serve_frame(struct call *call, struct cursor *c, struct buf *reply) {
    switch (call->daemon.kind) {
    case EXEC: run_plugin(call, c, reply); return EXECUTED;
    case FIND: find_plugin(call, c, reply); return FOUND;
    case STAT: stat_path(c, reply); return STATED;
    case SAVE: case APPEND: case FORGET: keep_record(call, c, reply); return SAVED;
    case LOCK: lock_other(call, c, reply); return LOCKED;
    case LEND: call->lend_s = get_u32(c); return 0;
    }
    daemon_lost(&call->daemon, "sent a frame of unknown kind %u", call->daemon.kind);
    return 0;
}

/* Prints the answer; when it didn't all reach the runtime the daemon has to undo, and we go on serving it. */
static bool give_answer(struct call *call, struct cursor *c, int *exit_code) {
    struct buf reply = {0};
    uint32_t code = get_u32(c);
    struct blob text = get_blob(c);
    if (c->bad || c->n || code > 255) return daemon_lost(&call->daemon, "sent a malformed frame"), false;
    int error = print_answer(text.p, text.n, 10000);
    call->answered = true;
    *exit_code = error ? 1 : (int)code;
    buf_u32(&reply, error);
    daemon_send(&call->daemon, ANSWERED, &reply, -1);
    buf_free(&reply);
    return !error;
}

/* Does what the daemon asks until it has answered; the exit code, -1 when it is lost before. */
int daemon_serve(struct call *call) {
    struct link *link = &call->daemon;
    int exit_code = 1;
    while (link->fd >= 0 && receive(link) > 0) {
        struct cursor c = {link->body.p, link->body.n, false};
        struct buf reply = {0};
        if (link->kind == ANSWER && !call->answered) {
            if (give_answer(call, &c, &exit_code)) return exit_code;
            continue;
        }
        uint32_t kind = serve_frame(call, &c, &reply);
        if (link->fd >= 0 && (c.bad || c.n)) daemon_lost(link, "sent a malformed frame");
        if (kind && link->fd >= 0) daemon_send(link, kind, &reply, -1);
        buf_free(&reply);
    }
    return call->answered ? exit_code : -1;
}

/* In a detached process: serves the daemon for a while after the answer, in the runtime's context still. */
void daemon_lend(struct call *call) {
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fork() != 0) return;
    setsid();
    for (int fd = 0; fd < 3; fd++) dup2(null, fd);
    if (call->sandbox.fd >= 0) close(call->sandbox.fd); /* its parent's to drop */
    call->sandbox.fd = -1;
    call->answered = true;
    signal(SIGALRM, SIG_DFL); /* a wait for the sandbox's lock may have caught it */
    alarm(call->lend_s < LEND_LIMIT_S ? call->lend_s : LEND_LIMIT_S);
    daemon_serve(call);
    lock_drop(&call->other);
    _exit(0);
}
