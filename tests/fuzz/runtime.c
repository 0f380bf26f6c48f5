/* What surrounds the shim, three parts divided by the byte 0x1e: NUL-ended variables, metaplugin.conf, stdin. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define main shim_main
#include "../../metaplugin/shim/main.c"
#undef main

#include "harness.h"

static struct blob next_part(struct blob *rest) {
    const unsigned char *end = memchr(rest->p, 0x1e, rest->n);
    struct blob part = {rest->p, end ? (size_t)(end - rest->p) : rest->n};
    rest->p += part.n + (end != NULL);
    rest->n -= part.n + (end != NULL);
    return part;
}

static void set_environment(struct blob block) {
    char entry[4096];
    clearenv();
    for (int i = 0; i < 40 && block.n; i++) {
        size_t n = strnlen((const char *)block.p, block.n);
        if (n < sizeof entry && n > 4 && !memcmp(block.p, "CNI_", 4)) {
            memcpy(entry, block.p, n);
            entry[n] = 0;
            char *value = strchr(entry, '=');
            if (value) *value++ = 0, setenv(entry, value, 1);
        }
        n += n < block.n;
        block.p += n, block.n -= n;
    }
}

/* As main() and run() do it, but the folders that metaplugin.conf names aren't made on this machine. */
static int as_main(struct call *call) {
    char why[PATH_MAX + 100];
    int exit_code = read_environment(call);
    if (exit_code) return exit_code;
    if (call->command == VERSION) {
        peek_input(call);
        return print_version(call->version[0] ? call->version : "1.1.0");
    }
    if ((exit_code = read_input(call)) || (exit_code = read_conf(call))) return exit_code;
    must(call->conf.run_dir[0] == '/' && call->conf.state_dir[0] == '/', "folders are absolute");
    must(call->conf.silence_ms >= 0 && call->conf.lock_wait_ms <= 3600000, "waits have their limits");
    call->conf.run_dir = world.run, call->conf.state_dir = world.state, call->conf.device_info_dir = world.state;
    call->conf.add_wait_ms = call->conf.del_wait_ms = call->conf.status_wait_ms = call->conf.lock_wait_ms = 0;
    set_search_path(call);
    must(!*call->search_path || *call->search_path == '/', "only absolute folders are searched");
    call->run_dir = open_run_dir(call->conf.run_dir, why, sizeof why);
    call->sandbox.folder = call->other.folder = openat(call->run_dir, "locks", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (call->command <= CHECK && ((exit_code = lock_sandbox(call)) || (exit_code = enter_netns(call)))) return exit_code;
    return answer(call);
}

int fuzz_runtime(const unsigned char *p, size_t n) {
    struct blob rest = {p, n}, environment = next_part(&rest), conf = next_part(&rest);
    char path[128];
    world_begin();
    snprintf(path, sizeof path, "%s/bin/metaplugin.conf", world.root);
    world_write(path, conf.p, conf.n);
    must(pwrite(0, rest.p, rest.n, 0) == (ssize_t)rest.n, "stdin can be written");
    set_environment(environment);
    struct call call = new_call(NO_COMMAND);
    int exit_code = as_main(&call);
    must(exit_code == 0 || exit_code == 1, "exit codes are 0 and 1");
    must(strspn(call.version, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.+-_") == strlen(call.version),
         "a version that is repeated is harmless");
    struct buf out = world_stdout();
    if (exit_code) must_be_error_object(out, 0, 0);
    else must(call.command == DEL ? !out.n : call.command == VERSION, "without a daemon only DEL and VERSION succeed");
    buf_free(&out);
    end_call(&call);
    world_end();
    return 0;
}
