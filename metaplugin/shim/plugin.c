#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shim.h"

extern char **environ;

#define OURSELVES "/proc/self/exe" /* also of a child */

/* 0 with the path, our own where nobody has installed a passthru; EINVAL when the type is no plain file name, else ENOENT or why the file can't be run. */
int plugin_find(const char *search_path, struct blob type, char path[PATH_MAX]) {
    char name[256];
    struct stat s;
    int error = ENOENT;
    if (!blob_text(type, name, sizeof name) || !*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
        return EINVAL;
    for (const char *at = search_path; *at; at += strspn(at, ":")) {
        int n = (int)strcspn(at, ":");
        if (snprintf(path, PATH_MAX, "%.*s/%s", n, at, name) < PATH_MAX && !stat(path, &s)) {
            if (S_ISREG(s.st_mode) && !access(path, X_OK)) return 0;
            error = EACCES;
        }
        at += n;
    }
    if (error != ENOENT || strcmp(name, "passthru")) return error;
    strcpy(path, OURSELVES);
    return 0;
}

/* The caller's environment without CNI_*, then the plugin's own, CNI_NETNS replaced where the caller says so. */
static char **plugin_environment(const struct call *call, const struct plugin *plugin, struct buf *text) {
    size_t count = 0, slots = 3;
    const char *end = (const char *)plugin->environment.p + plugin->environment.n;
    buf_printf(text, "CNI_PATH=%s", call->search_path);
    buf_add(text, "", 1);
    if (plugin->netns) {
        buf_printf(text, "CNI_NETNS=%s", plugin->netns);
        buf_add(text, "", 1);
    }
    for (char **e = environ; *e; e++) slots++;
    for (const char *e = end - plugin->environment.n; e < end; e += strlen(e) + 1) slots++;
    char **list = calloc(slots, sizeof *list);
    if (!list) _exit(126);
    for (char **e = environ; *e; e++)
        if (strncmp(*e, "CNI_", 4)) list[count++] = *e;
    for (const char *e = end - plugin->environment.n; e < end; e += strlen(e) + 1)
        if (!plugin->netns || strncmp(e, "CNI_NETNS=", 10)) list[count++] = (char *)e;
    list[count++] = (char *)text->p;
    if (plugin->netns) list[count++] = (char *)text->p + strlen((char *)text->p) + 1;
    return list;
}

/* A DEL cut short can leave what no later DEL finds (bridge takes the link away first, and from its addresses then knows the
 * masquerading rules): it runs to its end or its deadline whoever else is gone, and the sandbox's lock makes others wait for it. */
static bool is_del(const struct plugin *plugin) {
    const char *end = (const char *)plugin->environment.p + plugin->environment.n;
    for (const char *e = end - plugin->environment.n; e < end; e += strlen(e) + 1)
        if (!strcmp(e, "CNI_COMMAND=DEL")) return true;
    return false;
}

/* In the child. The locks go with it, so that nobody takes them while anything of it runs. */
static void become(struct call *call, const struct plugin *plugin, const char *path, int fds[4], pid_t parent) {
    struct buf text = {0};
    sigset_t none;
    char *argv[] = {strcmp(path, OURSELVES) ? (char *)path : "passthru", NULL};
    setpgid(0, 0);
    if (!is_del(plugin)) prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    for (int i = 0; i < 3; i++)
        if (dup2(fds[i], i) < 0) _exit(127);
    fcntl(call->sandbox.fd, F_SETFD, 0), fcntl(call->other.fd, F_SETFD, 0);
    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    char **environment = plugin_environment(call, plugin, &text);
    for (int tries = 0; tries < 10; tries++) { /* a binary that is just being installed (containernetworking/cni#763) */
        execve(path, argv, environment);
        if (errno != ETXTBSY) break;
        usleep(50000);
    }
    int error = errno;
    _exit(write(fds[3], &error, sizeof error) < 0 ? 127 : 126);
}

/* The pid, -1 with errno. ours: the parent's ends of the plugin's stdin, stdout, stderr. */
static pid_t start(struct call *call, const struct plugin *plugin, const char *path, int ours[3]) {
    int ends[4][2], theirs[4], error = 0, made = 0;
    pid_t pid = -1, parent = getpid();
    while (made < 4 && !pipe2(ends[made], O_CLOEXEC)) made++;
    if (made < 4) error = errno;
    for (int i = 0; i < made; i++) theirs[i] = ends[i][i != 0];
    if (!error && (pid = fork()) < 0) error = errno;
    if (!pid) become(call, plugin, path, theirs, parent);
    for (int i = 0; i < made; i++) close(theirs[i]);
    if (pid > 0) {
        setpgid(pid, pid); /* also here: whoever comes first */
        while (read(ends[3][0], &error, sizeof error) < 0 && errno == EINTR) continue;
    }
    if (made == 4) close(ends[3][0]);
    for (int i = 0; i < 3 && i < made; i++) {
        ours[i] = ends[i][i == 0];
        if (error) close(ours[i]);
        else fcntl(ours[i], F_SETFL, O_NONBLOCK);
    }
    if (pid > 0 && error) waitpid(pid, NULL, 0);
    errno = error;
    return error ? -1 : pid;
}

/* Reads what is there; closes at the end. False when that is over the limit. */
static bool take_output(int *fd, struct buf *b, size_t limit) {
    static unsigned char chunk[65536];
    ssize_t n;
    while ((n = read(*fd, chunk, sizeof chunk)) > 0 && b->n <= limit) buf_add(b, chunk, n);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        close(*fd);
        *fd = -1;
    }
    return b->n <= limit;
}

/* Passes stderr on as far as somebody reads ours, and keeps the tail. */
static void take_errors(int *fd, struct buf *tail) {
    struct buf fresh = {0};
    struct pollfd out = {.fd = 2, .events = POLLOUT};
    take_output(fd, &fresh, 1 << 20);
    for (size_t at = 0; at < fresh.n && poll(&out, 1, 0) == 1;) {
        ssize_t n = write(2, fresh.p + at, fresh.n - at < PIPE_BUF ? fresh.n - at : PIPE_BUF);
        if (n <= 0) break;
        at += n;
    }
    buf_add(tail, fresh.p, fresh.n);
    if (tail->n > STDERR_KEPT) {
        memmove(tail->p, tail->p + tail->n - STDERR_KEPT, STDERR_KEPT);
        tail->n = STDERR_KEPT;
    }
    buf_free(&fresh);
}

static void give_input(int *fd, struct blob *input) {
    ssize_t n = write(*fd, input->p, input->n);
    if (n > 0) *input = (struct blob){input->p + n, input->n - n};
    if (!input->n || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        close(*fd);
        *fd = -1;
    }
}

static bool has_ended(pid_t pid) {
    siginfo_t info = {0};
    return !waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid == pid;
}

/* Until the plugin itself ends (a child of its may hold stdout for ever) or must be killed: at its deadline, for too much output,
 * or, unless it is a DEL, with the daemon lost. */
static enum outcome attend(struct call *call, pid_t pid, int fds[3], const struct plugin *plugin, struct plugin_end *end) {
    struct blob input = plugin->input;
    struct link *daemon = &call->daemon;
    long long deadline = now_ms() + plugin->deadline_ms;
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    int ended = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    bool needs_daemon = daemon->fd >= 0 && !is_del(plugin);
    enum outcome outcome = EXITED;
    while (outcome == EXITED && !has_ended(pid) && (daemon->fd >= 0 || !needs_daemon)) {
        struct signalfd_siginfo info;
        struct pollfd polls[] = {{fds[0], POLLOUT, 0}, {fds[1], POLLIN, 0}, {fds[2], POLLIN, 0},
                                 {daemon->fd, POLLIN, 0}, {ended, POLLIN, 0}};
        long long now = now_ms(), until = deadline;
        if (daemon->fd >= 0 && daemon->last_sign + daemon->silence_ms < until) until = daemon->last_sign + daemon->silence_ms;
        poll(polls, 5, now < until ? (int)(until - now) : 0);
        while (read(ended, &info, sizeof info) > 0) continue;
        if (polls[0].revents) give_input(&fds[0], &input);
        if (polls[1].revents && !take_output(&fds[1], &end->out, INPUT_LIMIT)) outcome = TOO_MUCH_OUTPUT;
        if (polls[2].revents) take_errors(&fds[2], &end->err);
        if (polls[3].revents && daemon_pump(daemon) > 0) daemon_lost(daemon, "sent a frame while a plugin ran");
        if (now >= deadline) outcome = TOO_LATE;
        else if (now >= until && daemon->fd >= 0 && daemon->last_sign + daemon->silence_ms <= now)
            daemon_lost(daemon, "gave no sign of life for %d ms (silence_ms)", daemon->silence_ms);
    }
    close(ended);
    return outcome;
}

/* Runs a plugin to its end; -1 when the daemon was lost meanwhile. */
int plugin_run(struct call *call, const struct plugin *plugin, struct plugin_end *end) {
    char path[PATH_MAX];
    int fds[3], status = 0, error = plugin_find(call->search_path, plugin->type, path);
    bool had_daemon = call->daemon.fd >= 0;
    pid_t pid = -1;
    *end = (struct plugin_end){.outcome = error == EINVAL ? TYPE_REFUSED : error == ENOENT ? NOT_FOUND : NOT_STARTED};
    if (!error && (pid = start(call, plugin, path, fds)) < 0) error = errno;
    end->status = error;
    if (pid < 0) return 0;
    end->outcome = attend(call, pid, fds, plugin, end);
    if (fds[1] >= 0 && end->outcome == EXITED && !take_output(&fds[1], &end->out, INPUT_LIMIT)) end->outcome = TOO_MUCH_OUTPUT;
    if (fds[2] >= 0) take_errors(&fds[2], &end->err);
    kill(-pid, SIGKILL); /* while its zombie keeps the number; what it left behind is nobody's */
    waitpid(pid, &status, 0);
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0) close(fds[i]);
    if (end->outcome == TOO_MUCH_OUTPUT) buf_free(&end->out);
    if (end->outcome == EXITED && WIFSIGNALED(status)) end->outcome = SIGNALLED;
    if (end->outcome <= SIGNALLED) end->status = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
    return had_daemon && call->daemon.fd < 0 ? -1 : 0;
}
