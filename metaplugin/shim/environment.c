#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shim.h"

static const char alphanumeric[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

static enum command command_named(const char *name) {
    static const char *const names[] = {"ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i])) return ADD + i;
    return NO_COMMAND;
}

bool id_is_valid(const char *id) {
    return strspn(id, alphanumeric) && !id[strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")];
}

static bool ifname_is_valid(const char *name) {
    return strlen(name) <= 15 && strcmp(name, ".") && strcmp(name, "..") && !strpbrk(name, "/: \t\n\v\f\r");
}

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

/* Fills in the call from CNI_*; 0, or the exit code after an error has been printed. */
int read_environment(struct call *call) {
    const char *command = variable("CNI_COMMAND");
    if (!*command) {
        dprintf(2, "metaplugin: a CNI meta-plugin for Kubernetes; container runtimes run it as the CNI specification says\n");
        return fail(call, INVALID_ENVIRONMENT, "CNI_COMMAND is not set");
    }
    call->command = command_named(command);
    call->id = variable("CNI_CONTAINERID");
    call->ifname = variable("CNI_IFNAME");
    call->netns_path = variable("CNI_NETNS");
    bool sandbox = call->command == ADD || call->command == DEL || call->command == CHECK;
    const char *missing[4];
    int n = 0;
    if (sandbox && !*call->id) missing[n++] = "CNI_CONTAINERID";
    if ((call->command == ADD || call->command == CHECK) && !*call->netns_path) missing[n++] = "CNI_NETNS";
    if (sandbox && !*call->ifname) missing[n++] = "CNI_IFNAME";
    if (call->command == GC && !*variable("CNI_PATH")) missing[n++] = "CNI_PATH";
    bool valid = call->command && !n && (!sandbox || (id_is_valid(call->id) && ifname_is_valid(call->ifname)));
    if (valid) return 0;
    peek_input(call); /* for the version in the error object */
    if (!call->command) return fail(call, INVALID_ENVIRONMENT, "CNI_COMMAND: unknown command \"%.100s\"", command);
    if (n)
        return fail(call, INVALID_ENVIRONMENT, "%s needs %s%s%s%s%s", command, missing[0], n > 1 ? ", " : "",
                    n > 1 ? missing[1] : "", n > 2 ? ", " : "", n > 2 ? missing[2] : "");
    if (!id_is_valid(call->id))
        return fail(call, INVALID_ENVIRONMENT,
                    "CNI_CONTAINERID \"%.300s\": must begin with a letter or digit and go on with these, '_', '.' or '-'", call->id);
    return fail(call, INVALID_ENVIRONMENT,
                "CNI_IFNAME \"%.100s\": at most 15 bytes, not '.' or '..', without '/', ':' or blanks", call->ifname);
}

/* Reads stdin to its end, and drains it even beyond the limit so that the runtime isn't left with a broken pipe. */
int read_input(struct call *call) {
    static unsigned char chunk[65536];
    ssize_t n;
    while ((n = read(0, chunk, sizeof chunk)) != 0) {
        if (n < 0 && errno != EINTR) return fail(call, IO_FAILURE, "reading stdin: %s", strerror(errno));
        if (n > 0 && call->input.n <= INPUT_LIMIT) buf_add(&call->input, chunk, n);
    }
    scan_version(&call->input, call->version);
    if (call->input.n > INPUT_LIMIT)
        return fail(call, DECODING_FAILURE, "the network configuration on stdin is larger than 16 MiB");
    return 0;
}

/* Reads what comes on stdin for the sake of its version; never waits longer than a second for more. */
void peek_input(struct call *call) {
    static unsigned char chunk[65536];
    long long end = now_ms() + 5000;
    struct pollfd in = {.fd = 0, .events = POLLIN};
    while (call->input.n <= INPUT_LIMIT && now_ms() < end && poll(&in, 1, 1000) == 1) {
        ssize_t n = read(0, chunk, sizeof chunk);
        if (n <= 0) break;
        buf_add(&call->input, chunk, n);
    }
    scan_version(&call->input, call->version);
}

static bool set_key(struct conf *conf, const char *key, char *value, bool *known) {
    struct { const char *key; char **text; int *number; } keys[] = {
        {"run_dir", &conf->run_dir, NULL}, {"state_dir", &conf->state_dir, NULL},
        {"plugin_dirs", &conf->plugin_dirs, NULL}, {"fallback", &conf->fallback, NULL},
        {"fallback_config", &conf->fallback_config, NULL}, {"device_info_dir", &conf->device_info_dir, NULL}, {"add_wait_ms", NULL, &conf->add_wait_ms},
        {"del_wait_ms", NULL, &conf->del_wait_ms}, {"status_wait_ms", NULL, &conf->status_wait_ms},
        {"lock_wait_ms", NULL, &conf->lock_wait_ms}, {"silence_ms", NULL, &conf->silence_ms}};
    *known = false;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (strcmp(keys[i].key, key)) continue;
        *known = true;
        if (keys[i].text) {
            *keys[i].text = value;
            return *value == '/' || (!*value && (keys[i].text == &conf->plugin_dirs || keys[i].text == &conf->fallback));
        }
        char *rest;
        errno = 0;
        long number = strtol(value, &rest, 10);
        *keys[i].number = (int)number;
        return *value && !*rest && !errno && number >= 0 && number <= 3600000;
    }
    return false;
}

static char *trim(char *text) {
    text += strspn(text, " \t\r");
    for (size_t n = strlen(text); n && strchr(" \t\r", text[n - 1]); n--) text[n - 1] = 0;
    return text;
}

static int parse_conf(struct call *call, const char *path, char *text) {
    int number = 0;
    for (char *line; (line = strsep(&text, "\n"));) {
        number++;
        line = trim(line);
        if (!*line || *line == '#') continue;
        char *value = strchr(line, '=');
        if (!value) return fail(call, INVALID_CONFIG, "%s:%d: \"%.100s\" is not key=value", path, number, line);
        *value++ = 0;
        bool known;
        if (!set_key(&call->conf, trim(line), trim(value), &known))
            return known ? fail(call, INVALID_CONFIG, "%s:%d: bad value \"%.100s\" of %s", path, number, trim(value), trim(line))
                         : fail(call, INVALID_CONFIG, "%s:%d: unknown key \"%.100s\"", path, number, trim(line));
    }
    return 0;
}

/* Reads metaplugin.conf beside the binary; it decides what may run as root, so nobody else may have written it. */
int read_conf(struct call *call) {
    static char path[PATH_MAX + 32], text[65536];
    call->conf = (struct conf){"/run/metaplugin", "/var/lib/cni/metaplugin", "", "", "/etc/cni/metaplugin/daemon.yaml", "/var/run/k8s.cni.cncf.io/devinfo", 30000, 2000, 8000, 30000, 15000};
    ssize_t n = readlink("/proc/self/exe", path, PATH_MAX);
    if (n < 0) return fail(call, IO_FAILURE, "/proc/self/exe: %s", strerror(errno));
    path[n] = 0;
    strcpy(strrchr(path, '/') + 1, "metaplugin.conf");
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return errno == ENOENT ? 0 : fail(call, INVALID_CONFIG, "%s: %s", path, strerror(errno));
    struct stat s;
    if (fstat(fd, &s) || !S_ISREG(s.st_mode) || s.st_uid != 0 || s.st_mode & 022)
        return fail(call, INVALID_CONFIG, "%s: must be a file owned by root and not writable by group or others", path);
    n = read(fd, text, sizeof text);
    close(fd);
    if (n < 0 || n == sizeof text) return fail(call, INVALID_CONFIG, "%s: %s", path, n < 0 ? strerror(errno) : "too large");
    if (memchr(text, 0, n)) return fail(call, INVALID_CONFIG, "%s: holds a NUL byte; a crash may have damaged it", path);
    text[n] = 0;
    return parse_conf(call, path, text);
}
