#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "shim.h"

/* The kernel's own headers are no part of musl. */
enum { NSFS_MAGIC = 0x6e736673, NETLINK_ROUTE = 0 };
#define NS_GET_NSTYPE _IO(0xb7, 3)

static const char own[] = "/proc/self/ns/net";

static bool is_netns(int fd) {
    struct statfs fs;
    return !fstatfs(fd, &fs) && fs.f_type == NSFS_MAGIC && ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET;
}

/* What the path names. It is opened for reading only when it is a namespace: opening a device can have effects. */
struct netns netns_probe(const char *path) {
    struct netns found = {.state = NETNS_NONE};
    struct stat s, self;
    struct statfs fs;
    if (!*path) return found;
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &s)) {
        found.error = errno;
        found.state = errno == ENOENT || errno == ENOTDIR ? NETNS_MISSING : NETNS_UNREADABLE;
        if (fd >= 0) close(fd);
        return found;
    }
    found = (struct netns){NETNS_OTHER_FILE, 0, s.st_dev, s.st_ino};
    bool namespace = !fstatfs(fd, &fs) && fs.f_type == NSFS_MAGIC;
    close(fd);
    if (!namespace) return found;
    fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &s)) {
        found.state = NETNS_UNREADABLE;
        found.error = errno;
    } else if (is_netns(fd)) {
        found = (struct netns){NETNS_POD, 0, s.st_dev, s.st_ino};
        if (stat(own, &self) || (self.st_dev == s.st_dev && self.st_ino == s.st_ino)) found.state = NETNS_HOST;
    }
    if (fd >= 0) close(fd);
    return found;
}

/* A NETLINK_ROUTE socket of that namespace, or -1 with errno. stranded: the way back failed, nothing may go on. */
int netns_open_netlink(const char *path, const struct netns *expected, bool *stranded) {
    struct stat s;
    int netlink = -1, error = ESTALE;
    int back = open(own, O_RDONLY | O_CLOEXEC);
    int there = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    *stranded = false;
    if (back < 0 || there < 0 || fstat(there, &s)) {
        error = errno;
    } else if (is_netns(there) && s.st_dev == expected->dev && s.st_ino == expected->inode) {
        if (setns(there, CLONE_NEWNET)) {
            error = errno;
        } else {
            netlink = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_ROUTE);
            error = errno;
            *stranded = setns(back, CLONE_NEWNET) != 0;
        }
    }
    if (back >= 0) close(back);
    if (there >= 0) close(there);
    errno = error;
    return netlink;
}
