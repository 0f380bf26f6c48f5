/* libFuzzer's entry (FUZZ_TARGET names the target), or, without libFuzzer, a main that runs files: target file... */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

static int (*target_named(const char *name))(const unsigned char *, size_t) {
    static const struct { const char *name; int (*run)(const unsigned char *, size_t); } targets[] = {
        {"frames_c", fuzz_frames}, {"runtime_c", fuzz_runtime}, {"record_c", fuzz_record}};
    for (size_t i = 0; name && i < sizeof targets / sizeof *targets; i++)
        if (!strcmp(targets[i].name, name)) return targets[i].run;
    fprintf(stderr, "targets are frames_c, runtime_c and record_c\n");
    exit(2);
}

#ifdef LIBFUZZER
int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n) {
    static int (*run)(const unsigned char *, size_t);
    if (!run) run = target_named(getenv("FUZZ_TARGET"));
    return run(p, n);
}
#else
int main(int argc, char **argv) {
    static unsigned char content[1 << 20];
    int (*run)(const unsigned char *, size_t) = target_named(argc > 1 ? argv[1] : NULL);
    for (int i = 2; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file) return perror(argv[i]), 2;
        size_t n = fread(content, 1, sizeof content, file);
        fclose(file);
        fprintf(stderr, "%s\n", argv[i]);
        unsigned char *exact = malloc(n ? n : 1); /* so that a read beyond it is seen */
        memcpy(exact, content, n);
        run(exact, n);
        free(exact);
    }
    return 0;
}
#endif
