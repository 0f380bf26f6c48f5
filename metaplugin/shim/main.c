#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shim.h"

/* The runtime's configuration's binDir (Multus's key), its CNI_PATH, then our own configuration's folders; absolute ones only, a
 * relative one could be anybody's. */
static void set_search_path(struct call *call) {
    struct buf path = {0};
    char dir[PATH_MAX];
    const char *lists[] = {dir, getenv("CNI_PATH"), call->conf.plugin_dirs};
    scan_text(&call->input, "binDir", dir, sizeof dir);
    for (int i = strchr(dir, '?') != NULL; i < 3; i++)
        for (const char *at = lists[i]; at && *at; at += strspn(at, ":")) {
            int n = (int)strcspn(at, ":");
            if (*at == '/') buf_printf(&path, "%s%.*s", path.n ? ":" : "", n, at);
            at += n;
        }
    buf_add(&path, "", 1);
    call->search_path = (char *)path.p;
}

/* The namespace that CNI_NETNS names, and a socket in it. 0, or the exit code: a DEL does without. */
static int enter_netns(struct call *call) {
    static const char *const problems[] = {"", "", "doesn't exist", "is no network namespace", "is the host's own network namespace",
                                           "can't be opened"};
    bool stranded = false;
    call->netns = netns_probe(call->netns_path);
    if (call->netns.state == NETNS_POD) {
        call->netlink = netns_open_netlink(call->netns_path, &call->netns, &stranded);
        if (stranded) return fail(call, IO_FAILURE, "the way back from the network namespace %s failed", call->netns_path);
        if (call->netlink < 0 && call->command != DEL)
            return fail(call, IO_FAILURE, "CNI_NETNS %s can't be entered: %s", call->netns_path, strerror(errno));
    } else if (call->command != DEL && call->netns.state != NETNS_NONE) {
        return fail(call, INVALID_ENVIRONMENT, "CNI_NETNS: %.300s %s%s%s", call->netns_path, problems[call->netns.state],
                    call->netns.state == NETNS_UNREADABLE ? ": " : "", call->netns.state == NETNS_UNREADABLE ? strerror(call->netns.error) : "");
    }
    return 0;
}

/* One operation at a time for a sandbox. 0, or the exit code: a DEL goes on, and says so. */
static int lock_sandbox(struct call *call) {
    char name[300];
    int error = lock_take(&call->sandbox, call->id, call->conf.lock_wait_ms);
    const char *why = error == EWOULDBLOCK ? "something runs for it still" : strerror(error);
    record_name(name, call->id, call->ifname);
    if (!error && call->command == DEL) record_drop_unfinished(call->conf.state_dir, name);
    if (!error) return 0;
    if (call->command == DEL) return buf_printf(&call->notes, "no lock for the sandbox: %s", why), 0;
    return fail(call, error == EWOULDBLOCK ? TRY_AGAIN_LATER : IO_FAILURE, "container %.64s: the sandbox's lock was not to be had in %d ms (lock_wait_ms): %s",
                call->id, call->conf.lock_wait_ms, why);
}

static void send_request(struct call *call) {
    extern char **environ;
    struct buf body = {0}, environment = {0};
    char link[64], runtime[PATH_MAX];
    snprintf(link, sizeof link, "/proc/%d/exe", (int)getppid());
    ssize_t n = readlink(link, runtime, sizeof runtime);
    for (char **e = environ; *e; e++)
        if (!strncmp(*e, "CNI_", 4)) buf_add(&environment, *e, strlen(*e) + 1);
    buf_u32(&body, 1);
    buf_blob(&body, environment.p, environment.n);
    buf_blob(&body, call->input.p, call->input.n);
    buf_u32(&body, call->netns.state);
    buf_u64(&body, call->netns.dev);
    buf_u64(&body, call->netns.inode);
    buf_blob(&body, runtime, n > 0 ? n : 0);
    buf_blob(&body, call->notes.p, call->notes.n);
    daemon_send(&call->daemon, REQUEST, &body, call->netlink);
    if (call->netlink >= 0) close(call->netlink); /* it keeps the namespace, and this process may be lent for long */
    call->netlink = -1;
    buf_free(&body), buf_free(&environment);
}

/* Whether a DEL needs thought: the record, which has its calls, is damaged; or there never was one, so what the default
 * network gave to a pod that is older than we has to be found out. */
static bool needs_thought(const struct call *call) {
    char name[300], tombstone[PATH_MAX + 320];
    struct buf file = {0};
    struct blob payload;
    record_name(name, call->id, call->ifname);
    int error = record_load(call->conf.state_dir, name, &file, &payload);
    buf_free(&file);
    snprintf(tombstone, sizeof tombstone, "%s/tombstones/%s", call->conf.state_dir, name);
    return error == EBADMSG || (error == ENOENT && access(tombstone, F_OK));
}

/* A node that boots would start an interpreter for each of its pods at once. A daemon may come before it is our turn. */
static bool fall_back(struct call *call) {
    int turns = openat(call->run_dir, "turns", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    long long until = now_ms() + call->conf.lock_wait_ms;
    struct flock turn = {.l_type = F_WRLCK, .l_len = 1}; /* held until this process ends */
    do
        for (turn.l_start = 0; turn.l_start < FALLBACKS; turn.l_start++)
            if (turns < 0 || !fcntl(turns, F_OFD_SETLK, &turn)) return !daemon_fall_back(call);
    while (daemon_connect(call, 200) && now_ms() < until);
    return call->daemon.fd >= 0 || !daemon_lost(&call->daemon, "can't be replaced: %d processes are at work in its place", FALLBACKS);
}

/* The daemon's answer, or what there is without a daemon. */
static int answer(struct call *call) {
    const struct conf *conf = &call->conf;
    int wait_ms = call->command == DEL ? conf->del_wait_ms : call->command == STATUS ? conf->status_wait_ms : conf->add_wait_ms;
    call->daemon.silence_ms = conf->silence_ms;
    bool served = !daemon_connect(call, wait_ms);
    size_t n = strlen(call->daemon.lost);
    if (!served) snprintf(call->daemon.lost + n, sizeof call->daemon.lost - n, ", tried for %d ms (%s_wait_ms)", wait_ms,
                          call->command == DEL ? "del" : call->command == STATUS ? "status" : "add");
    if (!served && *conf->fallback && (call->command != DEL || needs_thought(call))) served = fall_back(call);
    if (served) {
        send_request(call);
        int exit_code = daemon_serve(call);
        if (exit_code >= 0) return exit_code;
    }
    if (call->command == DEL) return replay(call);
    return fail(call, call->command == STATUS ? NOT_AVAILABLE : TRY_AGAIN_LATER, "the metaplugin daemon %s", call->daemon.lost);
}

static int run(struct call *call) {
    char why[PATH_MAX + 100];
    bool sandbox = call->command == ADD || call->command == DEL || call->command == CHECK;
    int failed;
    if ((failed = read_input(call)) || (failed = read_conf(call))) return failed;
    set_search_path(call);
    call->run_dir = open_run_dir(call->conf.run_dir, why, sizeof why);
    if (call->run_dir < 0) return fail(call, IO_FAILURE, "%s", why);
    call->sandbox.folder = call->other.folder = openat(call->run_dir, "locks", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (sandbox && ((failed = lock_sandbox(call)) || (failed = enter_netns(call)))) return failed;
    return answer(call);
}

int main(int argc, char **argv) {
    struct call call = {.netlink = -1, .sandbox = {.fd = -1}, .other = {.fd = -1}, .daemon = {.fd = -1}};
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL); /* awaited by signalfd */
    signal(SIGPIPE, SIG_IGN);
    int exit_code = read_environment(&call);
    if (exit_code) return exit_code;
    if (call.command == VERSION) {
        peek_input(&call);
        return print_version(call.version[0] ? call.version : "1.1.0");
    }
    const char *slash = argc ? strrchr(argv[0], '/') : NULL;
    if (argc && !strcmp(slash ? slash + 1 : argv[0], "passthru")) return pass_through(&call);
    exit_code = run(&call);
    if (call.daemon.fd >= 0 && call.lend_s) daemon_lend(&call);
    lock_drop(&call.other);
    lock_drop(&call.sandbox);
    return exit_code;
}
