/*
 * Looks names up as dynamic clients do: names LIBRARY NAME...
 * Also that loading changes nothing that a program could notice.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define SIGNALS 64

static void handlers(struct sigaction *all)
{
    int i;
    for (i = 1; i < SIGNALS; i++) {
        memset(&all[i], 0, sizeof all[i]);
        sigaction(i, NULL, &all[i]);
    }
}

int main(int argc, char **argv)
{
    static struct sigaction before[SIGNALS], after[SIGNALS];
    union { void *object; char (*function)(void); } name;
    int i, missing = 0;
    void *library;

    handlers(before);
    library = dlopen(argv[1], RTLD_LAZY);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    for (i = 2; i < argc; i++) {
        if (!dlsym(library, argv[i])) {
            fprintf(stderr, "%s is missing\n", argv[i]);
            missing = 1;
        }
    }
    name.object = dlsym(library, "VMControl_Init");
    missing |= !name.object || name.function() != 1;
    name.object = dlsym(library, "VMControl_VMInit");
    missing |= !name.object || name.function() != 1;
    handlers(after);
    for (i = 1; i < SIGNALS; i++) {
        if (before[i].sa_handler != after[i].sa_handler) {
            fprintf(stderr, "signal %d has a handler\n", i);
            missing = 1;
        }
    }
    dlclose(library);
    return missing;
}
