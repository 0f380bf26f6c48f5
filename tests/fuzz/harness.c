#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"

/* The linker's --wrap puts these in the place of what would leave the world. */
pid_t __real_fork(void);
int __real_openat(int folder, const char *path, int flags, ...);
ssize_t __real_readlink(const char *path, char *target, size_t size);
void *__real_realloc(void *p, size_t n);
void __real_free(void *p);
int __real_plugin_run(struct call *call, const struct plugin *plugin, struct plugin_end *end);

struct world world;
static bool inside;
static int free_descriptor;
static int *violations; /* shared with the children */
static void *held[256]; /* what the shim has allocated; it ends without freeing all of it */
static size_t held_n;

void must(bool holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "MUST HOLD: %s\n", what);
    abort();
}

static void make_folder(char *path, size_t size, const char *name) {
    must(snprintf(path, size, "%s/%s", world.root, name) < (int)size && !mkdir(path, 0700), "a folder can be made");
}

static void make_plugin(const char *name) {
    char path[160];
    snprintf(path, sizeof path, "%s/%s", world.plugins, name);
    world_write(path, "", 0);
    chmod(path, 0700);
}

static void make_world(void) {
    sigset_t child;
    strcpy(world.root, "/run/metaplugin-fuzz-XXXXXX");
    must(mkdtemp(world.root), "there is a /run");
    make_folder(world.run, sizeof world.run, "run");
    make_folder(world.state, sizeof world.state, "state");
    make_folder(world.plugins, sizeof world.plugins, "bin");
    snprintf(world.record, sizeof world.record, "%s/attachments/c1@eth0", world.state);
    snprintf(world.tombstone, sizeof world.tombstone, "%s/tombstones/c1@eth0", world.state);
    make_plugin("p");
    make_plugin("fails");
    violations = mmap(NULL, sizeof *violations, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int fd = 0; fd < 2; fd++) must(dup2(memfd_create("stdio", 0), fd) == fd, "stdin and stdout can be files");
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void empty_folder(const char *base, const char *name) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", base, name);
    DIR *folder = opendir(path);
    if (!folder) return;
    for (struct dirent *e; (e = readdir(folder));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) unlinkat(dirfd(folder), e->d_name, 0);
    closedir(folder);
}

void world_begin(void) {
    if (!world.root[0]) make_world();
    empty_folder(world.state, "attachments");
    empty_folder(world.state, "tombstones");
    empty_folder(world.run, "locks");
    for (int fd = 0; fd < 2; fd++) must(!ftruncate(fd, 0) && !lseek(fd, 0, SEEK_SET), "stdio can be emptied");
    world.forks_left = world.runs = world.succeeded = 0;
    world.emulate = false;
    close(free_descriptor = dup(0));
    inside = true;
}

void world_end(void) {
    int next = dup(0);
    inside = false;
    while (held_n) __real_free(held[--held_n]);
    close(next);
    must(next == free_descriptor, "no descriptor is left open");
    must(!*violations, "a delegate's environment is the runtime's with CNI_* of its own");
}

void world_write(const char *path, const void *p, size_t n) {
    bool was_inside = inside;
    inside = false;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    must(fd >= 0 && write(fd, p, n) == (ssize_t)n, "a file can be written");
    close(fd);
    inside = was_inside;
}

struct buf world_stdout(void) {
    struct buf out = {0};
    unsigned char chunk[4096];
    ssize_t n;
    for (off_t at = 0; (n = pread(1, chunk, sizeof chunk, at)) > 0; at += n) buf_add(&out, chunk, n);
    return out;
}

struct call new_call(enum command command) {
    struct call call = {.command = command, .id = "c1", .ifname = "eth0", .netns_path = "", .netlink = -1, .run_dir = -1,
                        .sandbox = {.folder = -1, .fd = -1}, .other = {.folder = -1, .fd = -1}, .daemon = {.fd = -1}};
    call.search_path = world.plugins;
    call.conf = (struct conf){.run_dir = world.run, .state_dir = world.state, .plugin_dirs = "", .fallback = "", .fallback_config = "/", .device_info_dir = world.state};
    call.daemon.silence_ms = 40;
    call.daemon.last_sign = now_ms();
    return call;
}

void end_call(struct call *call) {
    lock_drop(&call->other);
    lock_drop(&call->sandbox);
    if (call->sandbox.folder >= 0) close(call->sandbox.folder);
    if (call->run_dir >= 0) close(call->run_dir);
    if (call->netlink >= 0) close(call->netlink);
    if (call->daemon.fd >= 0) close(call->daemon.fd);
    if (call->search_path != world.plugins) free(call->search_path);
    buf_free(&call->daemon.body);
    buf_free(&call->input);
    buf_free(&call->notes);
}

static size_t json_string(struct buf b, size_t at) {
    must(at < b.n && b.p[at] == '"', "a text begins with a quote");
    for (at++; at < b.n && b.p[at] != '"'; at++) {
        must(b.p[at] >= 0x20, "a text holds no control characters");
        if (b.p[at] == '\\') must(++at < b.n && strchr("\"\\u", b.p[at]), "an escape is one that we write");
    }
    must(at < b.n, "a text ends");
    return at + 1;
}

static size_t json_literal(struct buf b, size_t at, const char *text) {
    must(b.n - at >= strlen(text) && !memcmp(b.p + at, text, strlen(text)), "stdout is an error object");
    return at + strlen(text);
}

/* Stdout holds one error object, whole, and nothing else. */
void must_be_error_object(struct buf out, int code, int or_code) {
    size_t at = json_string(out, json_literal(out, 0, "{\"cniVersion\":"));
    int found = 0;
    at = json_literal(out, at, ",\"code\":");
    for (; at < out.n && out.p[at] >= '0' && out.p[at] <= '9'; at++) found = found * 10 + out.p[at] - '0';
    at = json_literal(out, json_string(out, json_literal(out, at, ",\"msg\":")), "}\n");
    must(at == out.n, "there is one error object");
    must(!code || found == code || found == or_code, "the code is the one that fits");
}

static void forget(void *p) {
    for (size_t i = 0; p && i < held_n; i++)
        if (held[i] == p) held[i] = held[--held_n];
}

void *__wrap_realloc(void *p, size_t n) {
    forget(p);
    void *now = __real_realloc(p, n);
    if (inside && now && held_n < sizeof held / sizeof *held) held[held_n++] = now;
    return now;
}

void __wrap_free(void *p) {
    forget(p);
    __real_free(p);
}

pid_t __wrap_fork(void) {
    if (!inside) return __real_fork();
    if (world.forks_left-- > 0) return __real_fork();
    errno = EAGAIN;
    return -1;
}

/* In the child: plays the plugin. */
int __wrap_execve(const char *path, char *const argv[], char *const environment[]) {
    int paths = 0, foreign = 0;
    for (char *const *e = environment; *e; e++) {
        if (!strncmp(*e, "CNI_PATH=", 9)) paths += strcmp(*e + 9, world.plugins) ? 2 : 1;
        foreign += strncmp(*e, "CNI_", 4) != 0;
    }
    for (char **e = environ; *e; e++) foreign -= strncmp(*e, "CNI_", 4) != 0;
    if (paths != 1 || foreign || strncmp(path, world.plugins, strlen(world.plugins)) || argv[1]) ++*violations;
    bool fails = strstr(path, "/fails") != NULL;
    if (write(1, "{}\n", 3) != 3 || (fails && write(2, "why\n", 4) != 4)) _exit(3);
    _exit(fails);
}

int __wrap_execl(const char *path, ...) {
    (void)path;
    _exit(127);
}

/* Names below a folder are names, never paths. */
int __wrap_openat(int folder, const char *path, int flags, mode_t mode) {
    must(!inside || (folder != AT_FDCWD && !strchr(path, '/') && strcmp(path, "..")), "a file's name is no path");
    return __real_openat(folder, path, flags, mode);
}

ssize_t __wrap_readlink(const char *path, char *target, size_t size) {
    if (!inside || strcmp(path, "/proc/self/exe")) return __real_readlink(path, target, size);
    return snprintf(target, size, "%s/bin/metaplugin", world.root);
}

int __wrap_dprintf(int fd, const char *format, ...) {
    (void)fd, (void)format;
    return 0;
}

int __wrap_usleep(unsigned us) {
    (void)us;
    return 0;
}

int __wrap_fsync(int fd) {
    (void)fd;
    return 0;
}

int __wrap_plugin_run(struct call *call, const struct plugin *plugin, struct plugin_end *end) {
    world.runs++;
    if (!world.emulate) return __real_plugin_run(call, plugin, end);
    *end = (struct plugin_end){.outcome = plugin->type.n ? plugin->type.p[0] % 7 : EXITED, .status = plugin->type.n > 6};
    buf_add(&end->out, plugin->input.p, plugin->input.n);
    if (end->outcome == EXITED && !end->status) world.succeeded++;
    return 0;
}
