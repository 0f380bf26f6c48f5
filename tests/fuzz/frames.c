/* A hostile daemon: the first byte says in which state the shim is, the rest are the daemon's bytes. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"

enum { LENT = 8, FORKS = 2 };

static int connected(const unsigned char *p, size_t n) {
    int pair[2], room = 4 << 20;
    must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), "there are sockets");
    for (int i = 0; i < 2; i++) setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
    must(send(pair[1], p, n, MSG_DONTWAIT) == (ssize_t)n, "an input fits into the socket");
    shutdown(pair[1], SHUT_WR);
    return pair[0] | pair[1] << 16;
}

int fuzz_frames(const unsigned char *p, size_t n) {
    char why[200];
    if (n < 2 || n > 60000) return 0;
    world_begin();
    struct call call = new_call(ADD + p[0] % 5);
    int both = connected(p + 1, n - 1), peer = both >> 16;
    call.daemon.fd = both & 0xffff;
    call.answered = p[0] & LENT;
    call.run_dir = open_run_dir(world.run, why, sizeof why);
    call.sandbox.folder = call.other.folder = open("/", O_PATH | O_CLOEXEC);
    dup3(call.run_dir, call.sandbox.folder, O_CLOEXEC);
    world.forks_left = FORKS;
    int exit_code = daemon_serve(&call);
    struct buf out = world_stdout();
    must(exit_code >= -1 && exit_code <= 255, "an exit code is a byte");
    must(call.answered || exit_code == -1, "without an answer there is no exit code");
    must(!(out.n && exit_code < 0), "what has been printed has an exit code: nothing may be printed after it");
    if (call.lend_s && call.daemon.fd >= 0) {
        call.answered = true;
        daemon_serve(&call);
        struct buf later = world_stdout();
        must(later.n == out.n, "a lent shim prints nothing");
        buf_free(&later);
    }
    buf_free(&out);
    close(peer);
    end_call(&call);
    world_end();
    return 0;
}
