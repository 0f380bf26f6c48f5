/* What the shim's fuzz targets share: a world of its own for each input, and no program ever executed. */
#pragma once

#include "../../metaplugin/shim/shim.h"

struct world {
    char root[64]; /* a folder below /run, a tmpfs in the private namespaces of the tests */
    char run[96], state[96], plugins[96], record[128], tombstone[128];
    int forks_left; /* how many children a delegate's start may still get */
    bool emulate;   /* plugin_run answers by the plugin's type, without a process */
    int runs;       /* calls of plugin_run, and how many of them ended well */
    int succeeded;
};

extern struct world world;

void world_begin(void);
void world_end(void);
void world_write(const char *path, const void *p, size_t n);
struct buf world_stdout(void);
void must(bool holds, const char *what);
struct call new_call(enum command command);
void end_call(struct call *call);
void must_be_error_object(struct buf out, int code, int or_code);

int fuzz_frames(const unsigned char *p, size_t n);
int fuzz_runtime(const unsigned char *p, size_t n);
int fuzz_record(const unsigned char *p, size_t n);
