/* <runtime>/bin/metaplugin: the program by the runtime's own interpreter and dynamic loader, wherever the runtime has been copied
 * to. Static: the node may have no C library, no Python and no shell. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char root[PATH_MAX], loader[PATH_MAX + 64], libraries[PATH_MAX + 64], python[PATH_MAX + 64];
    ssize_t length = readlink("/proc/self/exe", root, sizeof root - 1);
    if (length < 0) return perror("metaplugin: /proc/self/exe"), 127;
    root[length] = '\0';
    for (int i = 0; i < 2; i++) /* its own name, and bin */
        if (strrchr(root, '/')) *strrchr(root, '/') = '\0';
    snprintf(loader, sizeof loader, "%s/lib/" LOADER, root);
    snprintf(libraries, sizeof libraries, "%s/lib", root);
    snprintf(python, sizeof python, "%s/bin/python3", root);

    char *words[] = {loader, "--inhibit-cache", "--library-path", libraries, python, "-I", "-X", "utf8", "-m", "metaplugin"};
    int count = sizeof words / sizeof *words;
    char **command = calloc(count + argc + 1, sizeof *command);
    if (!command) return perror("metaplugin"), 127;
    memcpy(command, words, sizeof words);
    for (int i = 1; i < argc; i++) command[count + i - 1] = argv[i];
    unsetenv("LD_PRELOAD"); /* of another C library's programs */
    unsetenv("LD_LIBRARY_PATH");
    execv(loader, command);
    fprintf(stderr, "metaplugin: ");
    perror(loader);
    return 127;
}
