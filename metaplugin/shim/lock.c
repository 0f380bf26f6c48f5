#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "shim.h"

/* Makes the folder 0700 and what is missing above it 0755; 0 or errno. */
int make_folders(const char *path) {
    char part[PATH_MAX];
    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part) return ENAMETOOLONG;
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(part, slash[1] ? 0755 : 0700) && errno != EEXIST) return errno;
        *slash = '/';
    }
    return mkdir(part, 0700) && errno != EEXIST ? errno : 0;
}

/* Opens run_dir after making sure that only root can have put anything into it; -1 with the reason in why. */
int open_run_dir(const char *path, char *why, size_t size) {
    struct stat s;
    int error = make_folders(path);
    int fd = error ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (!error && (fd < 0 || fstat(fd, &s))) error = errno;
    if (error) snprintf(why, size, "run_dir %s: %s", path, error == ELOOP ? "is a symbolic link" : strerror(error));
    /* A kubelet makes it 0755 for the daemon's pod, before there is a daemon: only root can have put anything there. */
    else if (s.st_uid != 0 || s.st_mode & 022 || (s.st_mode & 077 && fchmod(fd, 0700)))
        snprintf(why, size, "run_dir %s: must be owned by root with mode 0700, is owned by uid %u with mode %04o", path,
                 (unsigned)s.st_uid, (unsigned)s.st_mode & 07777);
    else if (mkdirat(fd, "locks", 0700) && errno != EEXIST) snprintf(why, size, "%s/locks: %s", path, strerror(errno));
    else return fd;
    if (fd >= 0) close(fd);
    return -1;
}

/* The id itself, or "_" and its FNV-1a-128 when it would not fit into a file name. */
void lock_name(char name[256], const char *id) {
    if (strlen(id) <= 200) {
        strcpy(name, id);
        return;
    }
    uint32_t h[4] = {0x6295c58d, 0x62b82175, 0x07bb0142, 0x6c62272e}; /* little end first */
    for (; *id; id++) {
        uint32_t low, next;
        uint64_t carry = 0;
        h[0] ^= (unsigned char)*id;
        low = h[0], next = h[1];
        for (int i = 0; i < 4; i++) { /* times the prime 2^88 + 0x13B */
            carry += (uint64_t)h[i] * 0x13B;
            h[i] = (uint32_t)carry;
            carry >>= 32;
        }
        carry = (uint64_t)h[2] + (uint32_t)(low << 24);
        h[2] = (uint32_t)carry;
        h[3] += (low >> 8) + (next << 24) + (uint32_t)(carry >> 32);
    }
    snprintf(name, 256, "_%08x%08x%08x%08x", h[3], h[2], h[1], h[0]);
}

static void wake(int signal) { (void)signal; }

/* After the wait the timer keeps firing, so that one that comes just before flock() sleeps doesn't get lost. */
static void set_alarm(int wait_ms) {
    struct sigaction action = {.sa_handler = wake};
    struct itimerval timer = {.it_interval.tv_usec = wait_ms ? 20000 : 0,
                              .it_value = {wait_ms / 1000, wait_ms % 1000 * 1000}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
}

static bool is_current(const struct lock *lock) {
    struct stat held, named;
    return !fstat(lock->fd, &held) && !fstatat(lock->folder, lock->name, &named, AT_SYMLINK_NOFOLLOW) &&
           held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

/* 0, or errno: EWOULDBLOCK when it was not free within the wait. Delegates and their children inherit the descriptor,
 * so the lock is free only when nothing of the last call runs any more, even if its shim was killed. */
int lock_take(struct lock *lock, const char *id, int wait_ms) {
    int error;
    long long end = now_ms() + wait_ms;
    lock_name(lock->name, id);
    do {
        lock->fd = openat(lock->folder, lock->name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (lock->fd < 0) return errno;
        error = flock(lock->fd, LOCK_EX | LOCK_NB) ? errno : 0;
        if (error == EWOULDBLOCK && wait_ms) {
            int left = (int)(end - now_ms());
            set_alarm(left > 1 ? left : 1);
            do error = flock(lock->fd, LOCK_EX) ? errno : 0;
            while (error == EINTR && now_ms() < end);
            set_alarm(0);
            if (error == EINTR) error = EWOULDBLOCK;
        }
        if (!error && is_current(lock)) return 0;
        close(lock->fd); /* its last holder unlinked it: the lock is another file now */
        lock->fd = -1;
    } while (!error);
    return error;
}

/* Unlinked while held: whoever waits for this file looks again and finds it stale. */
void lock_drop(struct lock *lock) {
    if (lock->fd < 0) return;
    unlinkat(lock->folder, lock->name, 0);
    close(lock->fd);
    lock->fd = -1;
}
