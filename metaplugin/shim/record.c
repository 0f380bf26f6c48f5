#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shim.h"

void record_name(char name[300], const char *id, const char *ifname) {
    lock_name(name, id);
    size_t n = strlen(name);
    snprintf(name + n, 300 - n, "@%s", ifname);
}

/* A folder of state_dir, which only root may have written: what records say is run as root. -1 with errno. */
static int open_folder(const char *state_dir, const char *name) {
    struct stat s;
    errno = make_folders(state_dir);
    int top = errno ? -1 : open(state_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (top < 0) return -1;
    bool made = !mkdirat(top, name, 0700) || errno == EEXIST;
    int fd = made ? openat(top, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    int error = errno;
    close(top);
    if (fd >= 0 && (fstat(fd, &s) || s.st_uid != 0 || s.st_mode & 022)) {
        close(fd);
        fd = -1;
        error = EPERM;
    }
    errno = error;
    return fd;
}

static int write_all(int fd, struct blob content) {
    for (size_t at = 0; at < content.n;) {
        ssize_t n = write(fd, content.p + at, content.n - at);
        if (n < 0 && errno != EINTR) return errno;
        if (n > 0) at += n;
    }
    return 0;
}

/* Durable and all or nothing: temporary file, fsync, rename, fsync of the folder. */
int record_save(const char *state_dir, const char *name, struct blob content) {
    char temporary[NAME_LIMIT + 2];
    int folder = open_folder(state_dir, "attachments");
    if (folder < 0) return errno;
    snprintf(temporary, sizeof temporary, ".%s", name);
    int fd = openat(folder, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    int error = fd < 0 ? errno : write_all(fd, content);
    if (!error && fsync(fd)) error = errno;
    if (fd >= 0 && close(fd) && !error) error = errno;
    if (!error && (renameat(folder, temporary, folder, name) || fsync(folder))) error = errno;
    if (error && fd >= 0) unlinkat(folder, temporary, 0);
    close(folder);
    return error;
}

/* What a save left that was killed before its rename; whoever holds the sandbox's lock may remove it. */
void record_drop_unfinished(const char *state_dir, const char *name) {
    char temporary[NAME_LIMIT + 2];
    int folder = open_folder(state_dir, "attachments");
    if (folder < 0) return;
    snprintf(temporary, sizeof temporary, ".%s", name);
    unlinkat(folder, temporary, 0);
    close(folder);
}

int record_append(const char *state_dir, const char *name, struct blob content) {
    struct stat s;
    int folder = open_folder(state_dir, "attachments");
    if (folder < 0) return errno;
    int fd = openat(folder, name, O_WRONLY | O_APPEND | O_NOFOLLOW | O_CLOEXEC);
    int error = fd < 0 || fstat(fd, &s) ? errno : write_all(fd, content);
    if (fd >= 0 && error && ftruncate(fd, s.st_size)) error = errno; /* or else the torn tail is ignored */
    close(fd), close(folder);
    return error;
}

/* What the record's plugins got as CNIDeviceInfoFile: `<record's name>:<interface>`. */
static void drop_device_info(const char *device_info_dir, const char *name) {
    char path[PATH_MAX];
    size_t n = strlen(name);
    DIR *dir = snprintf(path, sizeof path, "%s/cni", device_info_dir) < PATH_MAX ? opendir(path) : NULL;
    for (struct dirent *file; dir && (file = readdir(dir));)
        if (!strncmp(file->d_name, name, n) && file->d_name[n] == ':') unlinkat(dirfd(dir), file->d_name, 0);
    if (dir) closedir(dir);
}

/* The tombstone makes repeats of the DEL no-ops; there is one even if there was no record. A disk without room for it
 * is no reason to keep the record of a DEL that is done. */
int record_forget(const struct conf *conf, const char *name) {
    int folder = open_folder(conf->state_dir, "attachments");
    if (folder < 0) return errno;
    drop_device_info(conf->device_info_dir, name);
    int tombs = open_folder(conf->state_dir, "tombstones"), fd = -1;
    int error = tombs < 0 || (renameat(folder, name, tombs, name) && errno != ENOENT) ? errno : 0;
    if (!error) fd = openat(tombs, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (!error && (fd < 0 || futimens(fd, NULL))) error = errno;
    if (error == ENOSPC || error == EDQUOT) error = unlinkat(folder, name, 0) && errno != ENOENT ? errno : 0;
    close(fd), close(tombs), close(folder);
    return error;
}

static int read_file(int fd, struct buf *file) {
    unsigned char chunk[4096];
    ssize_t n;
    while ((n = read(fd, chunk, sizeof chunk)) != 0) {
        if (n < 0 && errno != EINTR) return errno;
        if (n > 0) buf_add(file, chunk, n);
        if (file->n > RECORD_LIMIT) return EBADMSG;
    }
    return 0;
}

/* The payload of the last whole section, which lies in file; ENOENT without a record, EBADMSG for a damaged one. */
int record_load(const char *state_dir, const char *name, struct buf *file, struct blob *payload) {
    int folder = open_folder(state_dir, "attachments");
    if (folder < 0) return errno;
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int error = fd < 0 ? errno : read_file(fd, file);
    close(fd), close(folder);
    if (error) return error;
    *payload = (struct blob){0};
    for (size_t at = 0; file->n - at >= 12 && !memcmp(file->p + at, "MPR1", 4);) {
        struct cursor c = {file->p + at + 4, 8, false};
        uint32_t n = get_u32(&c), checksum = get_u32(&c);
        if (!n || n > file->n - at - 12 || crc32_of(file->p + at + 12, n) != checksum) break;
        *payload = (struct blob){file->p + at + 12, n};
        at += 12 + n;
    }
    return payload->p ? 0 : EBADMSG;
}
